"""Requests in flight, answered together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class OverloadedError(Exception):
    """More requests wait than may."""


class Batcher:
    """Answers what is asked while it is busy in one call.

    Nothing waits for company: a lone request is answered at once, and what comes in meanwhile
    makes the next batch. So batches grow with the load.

    Args:
        answer: Takes a list of requests and returns an answer, or an exception, for each. It
            runs in a thread of its own, one call after the other.
        max_batch: Most requests in a call.
        max_waiting: Most requests that wait; more are refused.
        observe: Is told the size of every batch.

    Example:
        >>> sizes = []
        >>> async def ask():
        ...     batcher = Batcher(lambda numbers: [number + 1 for number in numbers])
        ...     return await asyncio.gather(*(batcher.ask(number) for number in range(3)))
        >>> asyncio.run(ask())
        [1, 2, 3]
    """

    def __init__(
        self,
        answer: Callable[[list[Any]], list[Any]],
        *,
        max_batch: int = 64,
        max_waiting: int = 512,
        observe: Callable[[int], None] = lambda size: None,
    ):
        self._answer = answer
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, request: Any) -> Any:
        """Returns the answer to one request.

        Raises:
            OverloadedError: If too many requests wait already.
            Exception: What `answer` gave or raised for it.
        """
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError(f"{len(self._waiting)} requests wait already.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch: list[tuple[Any, asyncio.Future[Any]]] = []
            while self._waiting and len(batch) < self._max_batch:
                request, future = self._waiting.popleft()
                if not future.done():  # nobody waits any more for one that is
                    batch.append((request, future))
            if not batch:
                continue
            self._observe(len(batch))
            requests = [request for request, _ in batch]
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, requests)
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def close(self) -> None:
        """Answers what waits, and ends."""
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=False)
