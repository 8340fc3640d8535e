"""Interrupts that wait for the step in work and for its checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def graceful_stop(callbacks: Iterable[Any] | None) -> Iterator[None]:
    """Has Ctrl-C and a request to terminate end training behind a checkpoint.

    The first interrupt is handed to the callbacks that have `stop_after_step(number)`; they save
    after the step in work, and raise. A second one ends at once. Without such callbacks, and
    outside the main thread, nothing changes.

    Args:
        callbacks: Keras callbacks of the training.
    """
    callbacks = getattr(callbacks, "callbacks", callbacks) or []
    asked = [each for each in callbacks if hasattr(each, "stop_after_step")]
    if not asked or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number, frame):
        signal.signal(number, before[number] or signal.SIG_DFL)
        for each in asked:
            each.stop_after_step(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
