"""The steps of `Scorer.recommend`: whom, which items, and the best of them."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.columns import check_columns
from tfrec_llm.data.id_index import as_ids
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, OnUnknown, Vocabulary
from tfrec_llm.errors import DataError, UnknownUserError
from tfrec_llm.evaluation.item_scores import Columns, ItemScores, Places
from tfrec_llm.metrics.running_top_k import RunningTopK
from tfrec_llm.reranking.shortlists import Shortlists

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue


@dataclass(frozen=True)
class KnownOrNew:
    """The users to recommend to.

    Attributes:
        sequences: Their histories.
        names: What to call them in the result, `[users]`.
        asked: int64 `[users]`, their places in the list that was asked for.
        number_asked: Length of that list.
        named: Whether the names are raw ids of users, not numbers in their place.
    """

    sequences: UserSequences
    names: pa.Array
    asked: np.ndarray
    number_asked: int
    named: bool = True

    @classmethod
    def known(cls, histories: UserSequences, users: Any, *, on_unknown: str) -> "KnownOrNew":
        """Finds known users by their raw ids; all of them when `users` is None."""
        if users is None:
            everyone = np.arange(len(histories))
            named = histories.user_ids is not None
            names = histories.user_ids if named else pa.array(everyone)
            return cls(histories, names, everyone, len(histories), named)
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

    @classmethod
    def where(
        cls, condition: Any, catalogue: "Catalogue | None", vocabulary: Vocabulary
    ) -> "ItemFilter":
        """Finds the items of the catalogue that satisfy a condition on its columns."""
        if not isinstance(condition, pc.Expression):
            raise TypeError(
                'where is a condition on columns of the catalogue, such as pc.field("price") < 50 '
                f"with pyarrow.compute as pc; got {type(condition).__name__}."
            )
        if catalogue is None:
            raise DataError(
                "where is a condition on the catalogue, but there is no catalogue. Give it to the "
                "log that is fitted."
            )
        try:
            found = catalogue.table.filter(condition)[catalogue.key]
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            missing = re.search(r"No match for FieldRef\.Name\((.*?)\)", reason)
            if missing is not None:
                check_columns(catalogue.table.column_names, [missing[1]], "catalogue")
            columns = ", ".join(f"{one.name} ({one.type})" for one in catalogue.table.schema)
            raise DataError(
                f"where={condition} is no condition on the catalogue: {reason}. Its columns are "
                f"{columns}."
            ) from error
        indexes = vocabulary.encode(found, on_unknown="ignore").astype(np.int64)
        return cls(common=np.unique(indexes[indexes >= NUM_RESERVED] - NUM_RESERVED))

    def joined_to(self, other: "ItemFilter | None") -> "ItemFilter":
        """Returns the items of both; this one is common to all users."""
        assert self.common is not None
        if other is None:
            return self
        if other.by_user is None:
            return ItemFilter(common=np.intersect1d(self.common, other.items()))
        rows, items = item_places(other.by_user)
        kept = np.isin(items, self.common)
        counts = np.bincount(rows[kept], minlength=len(other.by_user))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return ItemFilter(by_user=UserSequences(items[kept] + NUM_RESERVED, offsets))

    def items(self) -> np.ndarray:
        """Returns all items of the filter, each once, rising, counted from the first."""
        if self.by_user is None:
            assert self.common is not None
            return self.common
        return np.unique(item_places(self.by_user)[1])

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


def reachable(
    allowed: ItemFilter | None, barred: ItemFilter | None, vocabulary: Vocabulary
) -> np.ndarray:
    """Returns the items that may be on anybody's list, rising, counted from the first."""
    items = np.arange(len(vocabulary)) if allowed is None else allowed.items()
    if barred is None or barred.common is None:
        return items
    return np.setdiff1d(items, barred.common)


def best_items(
    score: Callable[[UserSequences], ItemScores],
    sequences: UserSequences,
    rows: np.ndarray,
    k: int,
    filter_seen: bool,
    allowed: ItemFilter | None,
    barred: ItemFilter | None,
) -> Shortlists:
    """Returns the best items for the users at `rows`, who did what `sequences` say."""
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
    return Shortlists(best.columns, best.scores)
