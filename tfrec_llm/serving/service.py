"""Recommending in real time: versions, histories and what to say when one of them fails."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrec_llm.errors import DataError, StoreError
from tfrec_llm.serving.batching import Batcher, OverloadedError
from tfrec_llm.serving.cold_start import Ranked
from tfrec_llm.serving.exported_model import ExportedModel
from tfrec_llm.serving.histories import Event, HistoryStore
from tfrec_llm.serving.model_versions import ModelVersions

_log = logging.getLogger("tfrec_llm.serving")

FALLBACK = "fallback"
# Calls of signatures, each of many users, that run or wait at most.
_CALLS = 128


@dataclass(frozen=True)
class Asked:
    """What one request asks for.

    Attributes:
        user: Raw id, as text; None for a visitor without one.
        history: Raw item ids, oldest first, in place of what the store knows; None for that.
        behaviors: Kinds of the behaviours of `history`.
        k: Items to recommend.
        exclude: Raw item ids not to recommend.
        filter_seen: Whether to leave out what the history holds; None as the model was exported.
        items: Raw item ids to score, in place of recommending.
        profile: What is known of the user, by feature; counts while there is no history.
        context: Values of columns of the catalogue; count while there is no history.
    """

    user: str | None = None
    history: Sequence[Any] | None = None
    behaviors: Sequence[str] | None = None
    k: int = 10
    exclude: Sequence[Any] = ()
    filter_seen: bool | None = None
    items: Sequence[Any] | None = None
    profile: Mapping[str, Any] | None = None
    context: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Answer:
    """What one request gets.

    Attributes:
        items: Raw item ids.
        scores: Their scores; None for items that are not known.
        source: Which way they were made: `"model"`, `"profile"` or `"popularity"` (the user has
            no history), or `"fallback"` (one of these two, as the model or the store did not
            answer in time).
        version: Of the model.
        history: Raw item ids that it was made by, oldest first; None where that was not found
            out in time.
        behaviors: Kinds of the behaviours of `history`.
    """

    items: list[Any]
    scores: list[float | None]
    source: str
    version: int
    history: Sequence[Any] | None = None
    behaviors: Sequence[str] | None = None


class RecommendationService:
    """Answers requests from a model's versions and a store of histories.

    Requests that come in while the model is busy are answered by one call. What goes wrong behind
    it makes an answer worse, not missing: without the store or the model there is what is popular.

    Args:
        versions: The model.
        store: The histories.
        timeout: Seconds after which a request is answered by what is popular.
        max_batch: Most requests in one call of the model.
        max_history: Newest behaviours of a user that are read.
        observe_batch: Is told the size of every batch.
    """

    def __init__(
        self,
        versions: ModelVersions,
        store: HistoryStore,
        *,
        timeout: float = 0.5,
        max_batch: int = 64,
        max_history: int = 500,
        observe_batch: Callable[[int], None] = lambda size: None,
    ):
        self.versions = versions
        self.store = store
        self.timeout = timeout
        self.max_history = max_history
        self._asked = Batcher(self._answer, max_batch=max_batch, observe=observe_batch)
        self._events = Batcher(self._add, max_batch=256)
        # Calls that are batches already, and what waits for a disk.
        self._threads = ThreadPoolExecutor(max_workers=2)
        self._calls = 0
        self._followed: asyncio.Task[None] | None = None

    async def answer(self, asked: Asked) -> Answer:
        """Returns the best items for a user, or the scores of items.

        Raises:
            DataError: If the profile or the context names what is not known.
        """
        model = self._model_for(asked)
        try:
            return await asyncio.wait_for(self._asked.ask((model, asked)), self.timeout)
        except (TimeoutError, OverloadedError, StoreError) as error:
            _log.warning("fallback", extra={"reason": type(error).__name__})
        except DataError:
            raise
        except Exception as error:
            _log.error("model failed", extra={"reason": type(error).__name__})
        return _from_popularity(model, asked)

    async def add(self, events: Sequence[Event]) -> list[bool]:
        """Keeps events, and returns of each whether it is new.

        Raises:
            StoreError: If they are not kept.
            OverloadedError: If too much waits to be kept.
        """
        return await self._events.ask(events)

    async def history(self, user: str) -> list[Event]:
        """Returns what is kept of a user, oldest first."""
        found = await self.in_thread(self.store.newest, [user], self.store.max_events)
        return found[user]

    async def erase(self, user: str) -> int:
        """Erases what is kept of a user, and returns how many events that were."""
        return await self.in_thread(self.store.erase, user)

    async def predict(
        self, model: ExportedModel, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Calls a signature of a version with arrays.

        Raises:
            OverloadedError: If too many calls wait already.
        """
        if self._calls >= _CALLS:
            raise OverloadedError(f"{self._calls} calls of signatures wait already.")
        self._calls += 1
        try:
            return await self.in_thread(model.call, signature, inputs)
        finally:
            self._calls -= 1

    def follow(self, seconds: float, *further: Callable[[], Any]) -> None:
        """Looks for new versions, and forgets old events, every so many seconds.

        Args:
            seconds: How often.
            *further: What else to do each time, before that.
        """

        async def forever() -> None:
            while True:
                await asyncio.sleep(seconds)
                for work in (*further, self.versions.refresh, self.store.purge):
                    try:
                        await asyncio.to_thread(work)
                    except Exception as error:
                        _log.error("upkeep failed", extra={"reason": type(error).__name__})

        self._followed = asyncio.get_running_loop().create_task(forever())

    async def close(self) -> None:
        """Answers what waits, and closes the store."""
        if self._followed is not None:
            self._followed.cancel()
        await self._asked.close()
        await self._events.close()
        self._threads.shutdown(wait=True)
        self.store.close()

    def _model_for(self, asked: Asked) -> ExportedModel:
        # Without a name, the history tells visitors apart as well as it can be done.
        return self.versions.for_user(asked.user if asked.user is not None else repr(asked.history))

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs what waits, for a disk or a model, beside the requests."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    def _add(self, requests: list[Sequence[Event]]) -> list[Any]:
        """Keeps the events of several requests in one go, which waits for the disk once."""
        new = iter(self.store.add([event for events in requests for event in events]))
        return [[next(new) for _ in events] for events in requests]

    def _answer(self, requests: list[tuple[ExportedModel, Asked]]) -> list[Any]:
        """Answers requests in one call of each version that they fall to."""
        completed = self._with_histories([asked for _, asked in requests])
        answers: list[Any] = [None] * len(requests)
        groups: dict[tuple[int, bool], list[int]] = {}
        for row, ((model, _), asked) in enumerate(zip(requests, completed, strict=True)):
            if isinstance(asked, Exception):
                answers[row] = asked
            else:
                groups.setdefault((id(model), asked.items is None), []).append(row)
        for (_, is_list), rows in groups.items():
            call = _recommended if is_list else _scored
            found = call(requests[rows[0]][0], [completed[row] for row in rows])
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return answers

    def _with_histories(self, asked: list[Asked]) -> list[Any]:
        """Completes requests by what the store knows; those it fails become its error."""
        users = {one.user for one in asked if one.history is None and one.user is not None}
        histories: dict[str, list[Event]] = {}
        failure: StoreError | None = None
        if users:
            try:
                histories = self.store.newest(list(users), self.max_history)
            except StoreError as error:
                failure = error
        completed: list[Any] = []
        for one in asked:
            if one.history is not None or one.user is None:
                completed.append(one)
            elif failure is not None:
                completed.append(failure)
            else:
                events = histories[one.user]
                history = [event.item for event in events]
                behaviors = [event.behavior for event in events]
                completed.append(dataclasses.replace(one, history=history, behaviors=behaviors))
        return completed


def _recommended(model: ExportedModel, asked: list[Asked]) -> list[Any]:
    """Returns lists, or what is wrong with a request."""
    warm = [row for row, one in enumerate(asked) if one.history]
    default = model.description["filter_seen"]
    ranked: dict[int, Ranked] = {}
    if warm:
        known = [asked[row] for row in warm]
        found = model.recommend(
            [_raw(model, one.history or ()) for one in known],
            k=[one.k for one in known],
            behaviors=[_kinds(one) for one in known],
            exclude=[_raw(model, one.exclude) for one in known],
            filter_seen=[default if one.filter_seen is None else one.filter_seen for one in known],
        )
        ranked = dict(zip(warm, found, strict=True))
    answers: list[Any] = []
    for row, one in enumerate(asked):
        try:
            best = ranked[row] if row in ranked else _cold(model, one)
            answers.append(
                Answer(
                    best.items,
                    list(best.scores),
                    best.source,
                    model.version,
                    one.history or (),
                    one.behaviors,
                )
            )
        except DataError as error:
            answers.append(error)
    return answers


def _cold(model: ExportedModel, asked: Asked, without: Sequence[Any] = ()) -> Ranked:
    return model.cold_start.recommend(
        asked.k,
        without=_raw(model, [*asked.exclude, *without]),
        profile=asked.profile,
        context=asked.context,
    )


def _scored(model: ExportedModel, asked: list[Asked]) -> list[Answer]:
    histories = [_raw(model, one.history or ()) for one in asked]
    items = [_raw(model, one.items or ()) for one in asked]
    scores = model.score(histories, items, behaviors=[_kinds(one) for one in asked])
    return [
        Answer(list(one.items or ()), row, "model" if history else "popularity", model.version)
        for one, row, history in zip(asked, scores, histories, strict=True)
    ]


def _from_popularity(model: ExportedModel, asked: Asked) -> Answer:
    """Answers without the model and without the store."""
    if asked.items is not None:
        counts = model.counts_of(_raw(model, asked.items))
        return Answer(list(asked.items), counts, FALLBACK, model.version)
    found = _cold(model, asked, () if asked.filter_seen is False else (asked.history or ()))
    return Answer(
        found.items, list(found.scores), FALLBACK, model.version, asked.history, asked.behaviors
    )


def _kinds(asked: Asked) -> list[str]:
    history = asked.history or ()
    return list(asked.behaviors) if asked.behaviors is not None else [""] * len(history)


def _raw(model: ExportedModel, ids: Sequence[Any]) -> list[Any]:
    """Returns ids in the type that the model knows; what is none of its ids stays unknown."""
    return [model.raw_id(one) for one in ids]
