"""Starting Keras and TensorFlow without their chatter."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfrec_llm.recommender import Recommender


def recommender_class() -> "type[Recommender]":
    """Imports Keras and its backend, and returns `Recommender`.

    TensorFlow's log lines are kept from the terminal; TF_CPP_MIN_LOG_LEVEL=0 in the environment
    shows them.
    """
    with _quiet():
        from tfrec_llm.recommender import Recommender
    return Recommender


def start_tensorflow(*, threads: int | None = None) -> None:
    """Imports TensorFlow alone, as quietly.

    Args:
        threads: That one operation may use; None leaves it to TensorFlow.
    """
    with _quiet():
        import tensorflow as tf
    if threads is not None:
        # In a process where TensorFlow is at work already, its threads are settled.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(threads)


def _quiet() -> contextlib.AbstractContextManager[None]:
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return contextlib.nullcontext()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    return _errors_held_back()


@contextlib.contextmanager
def _errors_held_back() -> Iterator[None]:
    """Holds back what the process writes to stderr, and shows it if the block fails.

    The level alone does not do it: until its log is set up, which is at the end of its import,
    TensorFlow writes lines of any level.
    """
    sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def progress() -> int:
    """Returns Keras' `verbose`: a bar on a terminal, a line an epoch in a file."""
    return 1 if sys.stdout.isatty() else 2
