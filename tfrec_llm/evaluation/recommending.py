"""The steps of `Scorer.recommend`: whom, which items, and the best of them."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.id_index import as_ids
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, OnUnknown, Vocabulary
from tfrec_llm.errors import UnknownUserError
from tfrec_llm.evaluation.item_scores import Columns, ItemScores, Places
from tfrec_llm.metrics.running_top_k import RunningTopK


@dataclass(frozen=True)
class KnownOrNew:
    """The users to recommend to.

    Attributes:
        sequences: Their histories.
        names: What to call them in the result, `[users]`.
        asked: int64 `[users]`, their places in the list that was asked for.
        number_asked: Length of that list.
    """

    sequences: UserSequences
    names: pa.Array
    asked: np.ndarray
    number_asked: int

    @classmethod
    def known(cls, histories: UserSequences, users: Any, *, on_unknown: str) -> "KnownOrNew":
        """Finds known users by their raw ids; all of them when `users` is None."""
        if users is None:
            everyone = np.arange(len(histories))
            names = pa.array(everyone) if histories.user_ids is None else histories.user_ids
            return cls(histories, names, everyone, len(histories))
        names = as_ids(users)
        if isinstance(names, pa.ChunkedArray):
            names = names.combine_chunks()
        asked = np.arange(len(names))
        try:
            return cls(histories.select(names), names, asked, len(names))
        except UnknownUserError:
            if on_unknown == "raise" or histories.user_ids is None:
                raise
        known = pc.is_in(names, value_set=histories.user_ids).to_numpy(zero_copy_only=False)
        if on_unknown == "warn":
            first = names[int(np.argmin(known))].as_py()
            warnings.warn(
                f"{np.count_nonzero(~known)} of {len(known)} users are left out: they have no "
                f"known history, first {first!r}.",
                stacklevel=3,
            )
        left = names.filter(pa.array(known))
        return cls(histories.select(left), left, asked[known], len(known))

    @classmethod
    def new(cls, histories: Any, vocabulary: Vocabulary, *, on_unknown: OnUnknown) -> "KnownOrNew":
        """Takes histories of raw item ids, or sequences that are made already."""
        if not isinstance(histories, UserSequences):
            histories = UserSequences.from_histories(histories, vocabulary, on_unknown=on_unknown)
        return cls.known(histories, None, on_unknown=on_unknown)

    def batches(self, rows: int) -> Iterator[np.ndarray]:
        """Yields the rows of the users to score together; one empty batch where there are none."""
        for start in range(0, max(len(self.names), 1), rows):
            yield np.arange(start, min(start + rows, len(self.names)))


@dataclass(frozen=True)
class ItemFilter:
    """Items that are allowed, or barred: the same for all users, or some for each.

    Attributes:
        common: int64 indexes, rising, counted from the first item; None if they differ by user.
        by_user: Indexes of the vocabulary for every user; None if they are common.
    """

    common: np.ndarray | None = None
    by_user: UserSequences | None = None

    @classmethod
    def of(
        cls, items: Any, asked: KnownOrNew, vocabulary: Vocabulary, *, on_unknown: OnUnknown
    ) -> "ItemFilter | None":
        """Reads one list of raw ids, or one for each user that was asked for."""
        if items is None:
            return None
        items = items if isinstance(items, pa.Array | pa.ChunkedArray) else list(items)
        if len(items) and isinstance(items[0], list | tuple | set | frozenset | np.ndarray):
            if len(items) != asked.number_asked:
                raise ValueError(
                    f"{len(items)} lists of items were given for {asked.number_asked} users."
                )
            lists = UserSequences.from_histories(
                [list(one) for one in items], vocabulary, on_unknown=on_unknown
            )
            return cls(by_user=lists.take(asked.asked))
        encoded = vocabulary.encode(items, on_unknown=on_unknown).astype(np.int64) - NUM_RESERVED
        return cls(common=np.unique(encoded[encoded >= 0]))

    def places(self, rows: np.ndarray) -> Places | Columns:
        """Returns the places of the items in the scores of the users at `rows`."""
        if self.by_user is None:
            assert self.common is not None
            return Columns(self.common)
        return Places(*item_places(self.by_user.take(rows)))


def item_places(sequences: UserSequences) -> tuple[np.ndarray, np.ndarray]:
    """Returns row and column, counted from the first item, of all items of the sequences."""
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
    items = sequences.items.astype(np.int64) - NUM_RESERVED
    known = items >= 0
    return rows[known], items[known]


def recommend_chunk(
    score: Callable[[UserSequences], ItemScores],
    asked: KnownOrNew,
    rows: np.ndarray,
    k: int,
    filter_seen: bool,
    allowed: ItemFilter | None,
    barred: ItemFilter | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Recommends to the users at `rows`.

    Returns:
        Flat arrays: row of the user, rank, item counted from the first, score.
    """
    sequences = asked.sequences.take(rows)
    scores = score(sequences)
    removed: list[Places | Columns] = []
    if filter_seen:
        removed.append(Places(*item_places(sequences)))
    if barred is not None:
        removed.append(barred.places(rows))
    only = None if allowed is None else allowed.places(rows)
    best = RunningTopK(len(rows), min(k, scores.shape[1]))
    for first, block in scores.blocks():
        best.add(
            first,
            block,
            removed=[places.within(first, block) for places in removed],
            only=None if only is None else only.within(first, block),
        )
    found_rows, ranks = np.nonzero(best.columns >= 0)
    items = best.columns[found_rows, ranks]
    return rows[found_rows], ranks + 1, items, best.scores[found_rows, ranks]
