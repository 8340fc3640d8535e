"""How the values of a feature become numbers: one class a kind of coding."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.feature_types import FeatureType, vector_matrix
from tfrec_llm.data.id_index import IdIndex
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.data.words import words
from tfrec_llm.errors import DataError

# What an index says of a value; values themselves follow.
MISSING, UNSEEN, FIRST_VALUE = 0, 1, 2

# Numbers farther from the mean than so many standard deviations count as that far.
_FARTHEST = 5.0
_MICROSECONDS_A_DAY = 86_400_000_000


class FeatureCode(Protocol):
    """What turns the column of a feature into arrays.

    Attributes:
        size: Number of indexes, or of the floats of a row.
        width: Indexes or floats in a row of the array.
    """

    @property
    def size(self) -> int: ...

    @property
    def width(self) -> int: ...

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        """Returns `[rows]` or `[rows, width]`."""
        ...


@dataclass(frozen=True)
class OneOf:
    """A value of a list: int32 `[rows]`, 0 missing, 1 unseen in training, then the values.

    Attributes:
        values: The values, the most frequent first.
    """

    values: tuple[str, ...]

    width = 1

    @classmethod
    def fit(cls, column: pa.ChunkedArray, *, min_count: int) -> "OneOf":
        return cls(_frequent(column.drop_null(), min_count))

    @property
    def size(self) -> int:
        return FIRST_VALUE + len(self.values)

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        places = self._index.positions(column)
        codes = np.where(places < 0, UNSEEN, places + FIRST_VALUE)
        return np.where(column.is_valid().to_numpy(), codes, MISSING).astype(np.int32)

    @cached_property
    def _index(self) -> IdIndex:
        return IdIndex(pa.array(self.values, pa.string()), holder="feature")


@dataclass(frozen=True)
class SeveralOf:
    """Several values of a list: int32 `[rows, width]`, 0 behind the last, 1 unseen, then values.

    Attributes:
        values: The values, the most frequent first.
        width: Most values that are read of a row, the first ones.
        text: Whether they are the words of a text.
    """

    values: tuple[str, ...]
    width: int
    text: bool

    @classmethod
    def fit(cls, column: pa.ChunkedArray, *, text: bool, min_count: int, width: int) -> "SeveralOf":
        rows, values = _listed(column, text)
        longest = int(np.bincount(rows, minlength=1).max())
        return cls(_frequent(values, min_count), max(1, min(width, longest)), text)

    @property
    def size(self) -> int:
        return FIRST_VALUE + len(self.values)

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        rows, values = _listed(column, self.text)
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        read = place < self.width
        codes = np.zeros((len(column), self.width), np.int32)
        codes[rows[read], place[read]] = self._one.encode(values)[read]
        return codes

    @cached_property
    def _one(self) -> OneOf:
        return OneOf(self.values)


@dataclass(frozen=True)
class Number:
    """A number: float32 `[rows, 2]`, the standardised value (0 where missing) and 1 where missing.

    `asinh((x - median) / spread)`, standardised: near the median it is as good as linear, far
    from it a logarithm, on either side. So a long tail does not squeeze the rest together, an
    outlier does not carry the mean away, and negative numbers need no care. The spread is that
    of the middle half of the values, or of a wider middle where half of them are equal.

    Attributes:
        median: Of the values.
        spread: The distance of two quantiles; 0 where all values are equal.
        mean: Of the values in asinh.
        deviation: Standard deviation of the values in asinh.
        date: Whether the values are times, which are read as days.
    """

    median: float
    spread: float
    mean: float
    deviation: float
    date: bool

    size = width = 2

    @classmethod
    def fit(cls, column: pa.ChunkedArray, *, date: bool) -> "Number":
        values = _floats(column.drop_null(), date)
        median = float(np.median(values))
        spread = 0.0
        for share in (0.25, 0.1, 0.05, 0.01, 0.0):
            low, high = np.quantile(values, [share, 1.0 - share])
            if high > low:
                spread = float(high - low)
                break
        bent = np.arcsinh((values - median) / (spread or 1.0))
        return cls(median, spread, float(bent.mean()), float(bent.std()), date)

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        values = _floats(column, self.date)
        missing = np.isnan(values)
        standard = np.zeros(len(values))
        if self.spread:
            bent = np.arcsinh((values - self.median) / self.spread)
            standard = np.clip((bent - self.mean) / self.deviation, -_FARTHEST, _FARTHEST)
        standard[missing] = 0.0
        return np.stack([standard, missing], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Vector:
    """A vector: float32 `[rows, width]` less the mean vector, in units of the typical distance.

    A missing vector holds zeros: the mean.

    Attributes:
        mean: Of the vectors, a number an entry.
        scale: Standard deviation of the entries from `mean`; 0 where all vectors are equal.
    """

    mean: tuple[float, ...]
    scale: float

    @classmethod
    def fit(cls, column: pa.ChunkedArray) -> "Vector":
        vectors, present = vector_matrix(column)
        vectors = vectors[present].astype(np.float64)
        mean = vectors.mean(axis=0)
        return cls(tuple(mean.tolist()), float(np.sqrt(np.square(vectors - mean).mean())))

    @property
    def size(self) -> int:
        return len(self.mean)

    @property
    def width(self) -> int:
        return len(self.mean)

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        if column.type.list_size != self.width:
            raise DataError(
                f"The vectors have {column.type.list_size} numbers; those it was fitted on had "
                f"{self.width}."
            )
        vectors, present = vector_matrix(column)
        centred = (vectors - np.asarray(self.mean)) / (self.scale or 1.0)
        present &= self.scale > 0
        return np.where(present[:, None], centred, 0.0).astype(np.float32)


_CODES: dict[str, type] = {
    "categorical": OneOf,
    "multi": SeveralOf,
    "numeric": Number,
    "text": SeveralOf,
    "date": Number,
    "vector": Vector,
}


def fit_code(
    column: pa.ChunkedArray,
    name: str,
    kind: FeatureType,
    *,
    min_count: int,
    max_values: int,
    max_words: int,
) -> FeatureCode:
    """Fits the code of a feature's kind to its column.

    Raises:
        DataError: If the column holds no value.
    """
    listed = kind in ("multi", "text")
    found = len(_listed(column, kind == "text")[0]) if listed else len(column) - column.null_count
    if not found:
        raise DataError(
            f"Feature {name!r} has no value in the {len(column):,} rows it is fitted on, so "
            "nothing is to be learned of it. Leave it out with columns=[...]."
        )
    if kind == "categorical":
        return OneOf.fit(column, min_count=min_count)
    if listed:
        width = max_words if kind == "text" else max_values
        return SeveralOf.fit(column, text=kind == "text", min_count=min_count, width=width)
    return Vector.fit(column) if kind == "vector" else Number.fit(column, date=kind == "date")


def code_from_config(kind: FeatureType, config: dict[str, Any]) -> FeatureCode:
    """Returns the code whose attributes are in a dict that has been through JSON."""
    listed = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }
    return _CODES[kind](**listed)


def _frequent(values: pa.Array | pa.ChunkedArray, min_count: int) -> tuple[str, ...]:
    return tuple(Vocabulary.fit(values, min_count=min_count).ids.to_pylist())


def _listed(column: pa.ChunkedArray, text: bool) -> tuple[np.ndarray, pa.ChunkedArray]:
    """Returns the row of every value of the lists, rising, and the values; nulls are none."""
    lists = words(column) if text else column
    rows, values = pc.list_parent_indices(lists), pc.list_flatten(lists)
    if values.null_count:
        rows, values = rows.filter(values.is_valid()), values.drop_null()
    return rows.to_numpy().astype(np.int64), values


def _floats(column: pa.ChunkedArray, date: bool) -> np.ndarray:
    """Returns float64 with NaN for nulls; times as days."""
    if date:
        column = column.cast(pa.int64())
    values = column.cast(pa.float64(), safe=False).to_numpy()
    return values / _MICROSECONDS_A_DAY if date else values
