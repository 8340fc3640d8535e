"""What users of a profile take: counting, for users of whom nothing else is known."""

import itertools
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.errors import DataError, DataFileError

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import UserTable
    from tfrec_llm.data.sequences import UserSequences

# Behaviours of an average user that every item is thought to have: so few real ones say little.
_PRIOR = 10.0
# Ranges that numbers are told apart by, of equally many users.
_RANGES = 5
_FORMAT = b"tfrec_llm.profile_counts.1"

Profile = Mapping[str, Any]


class ProfileCounts:
    """Counts which items users of each value of each feature took.

    The lift of an item for a profile is the sum, over the features that are known, of the
    logarithms of how much more often users with that value take it than others do: naive Bayes.
    Numbers count by five ranges, lists by each of their values; text, dates and vectors do not.

    Args:
        table: Rows of feature, value, item (from 0) and count.
        edges: Upper ends of the ranges of numeric features.
        num_items: Number of items.

    Example:
        >>> log = tfrec_llm.data.BehaviorLog.from_arrow(
        ...     pa.table({"user": ["a", "b"], "item": ["hat", "top"], "time": [1, 2]})
        ... )
        >>> vocabulary = tfrec_llm.data.Vocabulary.fit(log.item)
        >>> histories = tfrec_llm.data.UserSequences.from_log(log, vocabulary)
        >>> users = tfrec_llm.data.UserTable(pa.table({"user": ["a", "b"], "of": ["x", "y"]}))
        >>> counts = ProfileCounts.fit(histories, len(vocabulary), users)
        >>> counts.lifts({"of": "x"}).round(3)
        array([ 0.087, -0.095], dtype=float32)
    """

    def __init__(self, table: pa.Table, edges: Mapping[str, list[float]], num_items: int):
        self._table = table
        self._edges = dict(edges)
        self._num_items = num_items
        pairs = list(zip(table["feature"].to_pylist(), table["value"].to_pylist(), strict=True))
        items, counts = table["item"].to_numpy(), table["count"].to_numpy()
        self._of_value: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._of_feature: dict[str, np.ndarray] = {}
        for pair, rows in itertools.groupby(range(len(pairs)), pairs.__getitem__):
            own = list(rows)
            found = items[own], counts[own].astype(np.float64)
            self._of_value[pair] = found
            total = self._of_feature.setdefault(pair[0], np.zeros(num_items))
            total[found[0]] += found[1]

    @classmethod
    def fit(cls, histories: "UserSequences", num_items: int, users: "UserTable") -> "ProfileCounts":
        """Counts what users did by what is known of them.

        Args:
            histories: What they did.
            num_items: Number of items of the vocabulary.
            users: Their profiles.

        Raises:
            DataError: If the users of the histories have no names, or no feature can be counted.
        """
        if histories.user_ids is None:
            raise DataError("The histories do not know the names of their users.")
        known = users.lookup(histories.user_ids)
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        items = np.asarray(histories.items, np.int64) - NUM_RESERVED
        rows, items = rows[items >= 0], items[items >= 0]
        edges: dict[str, list[float]] = {}
        parts = []
        for feature, kind in users.types.items():
            if kind == "numeric":
                numbers = known[feature].to_numpy().astype(np.float64)
                cuts = np.nanquantile(numbers, np.linspace(0, 1, _RANGES + 1)[1:-1])
                edges[feature] = np.unique(cuts).tolist()
                values = [[] if np.isnan(one) else [_range(one, edges[feature])] for one in numbers]
            elif kind in ("categorical", "multi"):
                values = [_values(one) for one in known[feature].to_pylist()]
            else:
                continue
            parts.append(_counted(feature, values, rows, items, num_items))
        if not parts:
            raise DataError(
                f"None of the features {dict(users.types)} can be counted: they are neither "
                "categories, lists nor numbers. UserTable(..., types=) says otherwise."
            )
        return cls(pa.concat_tables(parts), edges, num_items)

    @property
    def features(self) -> list[str]:
        """Names of the features that are counted."""
        return list(self._of_feature)

    def lifts(self, profile: Profile) -> np.ndarray | None:
        """Returns float32 `[items]`, to be added to logarithms of frequencies.

        Args:
            profile: Values by feature; those that nobody in training had tell nothing.

        Returns:
            None if the profile tells nothing.

        Raises:
            DataError: If a feature is not counted, or a value is not of its type.
        """
        lifts = None
        for feature, given in profile.items():
            if feature not in self._of_feature:
                raise DataError(
                    f"{feature!r} is no feature of users here; they are {self.features}."
                )
            totals = self._of_feature[feature]
            for value in self._as_values(feature, given):
                if (feature, value) not in self._of_value:
                    continue
                items, counts = self._of_value[feature, value]
                share = counts.sum() / totals.sum()
                own = np.full(self._num_items, _PRIOR * share)
                own[items] += counts
                lift = np.log(own / (totals + _PRIOR) / share)
                lifts = lift if lifts is None else lifts + lift
        return None if lifts is None else lifts.astype(np.float32)

    def _as_values(self, feature: str, given: Any) -> list[str]:
        if given is None:
            return []
        if feature not in self._edges:
            return _values(given)
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise DataError(f"{feature!r} is a number.")
        return [_range(given, self._edges[feature])]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the counts to a Parquet file."""
        metadata = {
            b"format": _FORMAT,
            b"edges": json.dumps(self._edges).encode(),
            b"items": str(self._num_items).encode(),
        }
        with replace_file(path) as temporary:
            table = self._table.replace_schema_metadata(metadata)
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ProfileCounts":
        """Reads what `save` wrote.

        Raises:
            DataFileError: If the file is damaged or holds something else.
        """
        try:
            table = pq.ParquetFile(path).read()
        except pa.ArrowException as error:
            raise DataFileError(f"{os.fspath(path)} cannot be read: {error}") from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"format") != _FORMAT:
            raise DataFileError(f"{os.fspath(path)} does not hold counts of profiles.")
        return cls(table, json.loads(metadata[b"edges"]), int(metadata[b"items"]))


def _counted(
    feature: str, values: list[list[str]], rows: np.ndarray, items: np.ndarray, num_items: int
) -> pa.Table:
    """Returns rows of feature, value, item and count, those of a value beside each other."""
    names = sorted({value for own in values for value in own})
    numbers = {name: number for number, name in enumerate(names)}
    keys = []
    for place in range(max(map(len, values), default=0)):
        own = np.array([numbers[one[place]] if place < len(one) else -1 for one in values])[rows]
        keys.append((own * num_items + items)[own >= 0])
    key, counts = np.unique(np.concatenate(keys or [np.zeros(0, np.int64)]), return_counts=True)
    value, item = np.divmod(key, num_items)
    return pa.table(
        {
            "feature": pa.array([feature] * len(key), pa.string()),
            "value": pa.array([names[number] for number in value], pa.string()),
            "item": item,
            "count": counts.astype(np.int64),
        }
    )


def _values(given: Any) -> list[str]:
    if given is None:
        return []
    # As a table of features writes them.
    return [
        str(one).lower() if isinstance(one, bool) else str(one)
        for one in (given if isinstance(given, list | tuple) else [given])
    ]


def _range(number: float, edges: list[float]) -> str:
    return str(int(np.searchsorted(edges, number, side="left")))
