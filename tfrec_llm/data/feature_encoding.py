"""Features as arrays that layers take, by what was learned of them in training."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import pyarrow as pa

from tfrec_llm.data.columns import check_columns, from_frame
from tfrec_llm.data.feature_codes import FeatureCode, code_from_config, fit_code
from tfrec_llm.data.feature_table import FeatureTable
from tfrec_llm.data.feature_types import (
    FEATURE_TYPES,
    FeatureType,
    feature_column,
    infer_type,
    vector_array,
)
from tfrec_llm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Columns = Union[FeatureTable, pa.Table, "pd.DataFrame", Mapping[str, Any]]


@dataclass(frozen=True)
class FeatureSpec:
    """What a layer must know of an encoded feature.

    Attributes:
        name: Name of the feature.
        kind: `"categorical"`, `"multi"`, `"numeric"`, `"text"`, `"date"` or `"vector"`.
        size: Number of indexes of a categorical, multi or text feature, 0 (missing) and 1
            (unseen) included; number of floats of the others.
        width: Indexes or floats in a row of the array; 1 for a categorical feature.
    """

    name: str
    kind: FeatureType
    size: int
    width: int = 1

    def __post_init__(self) -> None:
        if self.kind not in FEATURE_TYPES:
            raise ValueError(f"{self.name!r} has the kind {self.kind!r}; kinds: {FEATURE_TYPES}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row of the array."""
        return () if self.kind == "categorical" else (self.width,)

    @property
    def is_index(self) -> bool:
        """Whether the array holds int32 indexes; it holds float32 numbers otherwise."""
        return self.kind in ("categorical", "multi", "text")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal one, JSON-able."""
        return dataclasses.asdict(self)


class FeatureEncoding:
    """Turns features into arrays; all it knows it has learned of the rows it was fitted on.

    - categorical, int32 `[n]`: 0 missing, 1 unseen in training, then the values.
    - multi, int32 `[n, width]`: the first `max_values` values, 0 behind them.
    - text, int32 `[n, width]`: the first `max_words` words, 0 behind them; see `words`.
    - numeric, float32 `[n, 2]`: standardised value (0 where missing); 1 where missing.
    - date, float32 `[n, 2]`: its days as a numeric feature.
    - vector, float32 `[n, d]`: less the mean, at unit variance; 0 where missing.

    Numbers of any sign are allowed, negative prices too. They pass `asinh` about their median, so
    that long tails and outliers leave the rest apart, see `Number`; what lies farther than five
    standard deviations counts as five. A numeric or vector feature whose values are all equal
    gives 0. Values of a category, tags and words that training did not hold are all index 1;
    with `min_count=2` the rare ones of training are, too, so that a model learns what a new one
    is like.

    Make one with `fit` or `from_config`.

    Attributes:
        specs: A `FeatureSpec` a feature.

    Example:
        >>> items = pa.table({"item": [1, 2, 3], "kind": ["a", "b", "a"], "usd": [5, None, -9]})
        >>> items = FeatureTable(items, key="item")
        >>> encoding = FeatureEncoding.fit(items, ids=[1, 3])
        >>> arrays = encoding.encode(items, ids=[2, 3, 99])
        >>> arrays["kind"].tolist(), arrays["usd"].tolist()
        ([1, 2, 0], [[0.0, 1.0], [-1.0, 0.0], [0.0, 1.0]])
    """

    def __init__(self, codes: Mapping[str, tuple[FeatureType, FeatureCode]]):
        self._codes = dict(codes)
        self.specs = tuple(
            FeatureSpec(name, kind, code.size, code.width)
            for name, (kind, code) in self._codes.items()
        )

    @classmethod
    def fit(
        cls,
        table: Columns,
        *,
        ids: Any = None,
        columns: Sequence[str] | None = None,
        types: Mapping[str, FeatureType] | None = None,
        min_count: int = 1,
        max_values: int = 8,
        max_words: int = 16,
    ) -> "FeatureEncoding":
        """Learns values, words and statistics.

        Args:
            table: The features: a `FeatureTable`, or columns as an Arrow table, a DataFrame or a
                dict of arrays. Values of a multi feature that is text stand between `|`.
            ids: The ids of a `FeatureTable` to learn from, such as the items of train; all where
                None.
            columns: The features; all where None.
            types: The type of a feature, by name, in place of the table's or the inferred one.
            min_count: Values and words that occur less often become unseen.
            max_values: Most values of a multi feature that are read.
            max_words: Most words of a text that are read.

        Raises:
            MissingColumnError: If a column of `columns` or `types` is not there.
            DataError: If a feature has no value at all, is not of its type, or there is no
                feature.
        """
        for name, value in (("max_values", max_values), ("max_words", max_words)):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}.")
        if columns is None:
            columns = list(table.types if isinstance(table, FeatureTable) else _names(table))
        if not columns:
            raise DataError("The table has no feature besides its key.")
        given = dict(table.types if isinstance(table, FeatureTable) else {}) | dict(types or {})
        found = _columns(table, [*columns, *(types or {})], ids)
        codes: dict[str, tuple[FeatureType, FeatureCode]] = {}
        for name in columns:
            kind = given.get(name) or infer_type(found[name])
            codes[name] = (
                kind,
                fit_code(
                    feature_column(found[name], name, kind, separator="|"),
                    name,
                    kind,
                    min_count=min_count,
                    max_values=max_values,
                    max_words=max_words,
                ),
            )
        return cls(codes)

    def encode(self, table: Columns, *, ids: Any = None) -> dict[str, np.ndarray]:
        """Returns the array of every feature.

        Args:
            table: As in `fit`; further columns are left alone.
            ids: The ids of a `FeatureTable` that are wanted, in any order; one that it does not
                hold has all features missing. None for its rows as they stand.

        Raises:
            MissingColumnError: If the table lacks a feature that the encoding was fitted on.
            DataError: If a feature is not of the type it was fitted on.
        """
        found = _columns(table, list(self._codes), ids)
        arrays = {}
        for name, (kind, code) in self._codes.items():
            if pa.types.is_null(found[name].type) and kind == "vector":
                arrays[name] = np.zeros((len(found[name]), code.width), np.float32)
                continue
            column = feature_column(found[name], name, kind, separator="|")
            try:
                arrays[name] = code.encode(column)
            except DataError as error:
                raise DataError(f"Feature {name!r}: {error}") from error
        return arrays

    def missing(self, count: int) -> dict[str, np.ndarray]:
        """Returns the arrays of rows of which nothing is known.

        Args:
            count: Number of rows.
        """
        return missing_features(self.specs, count)

    def __repr__(self) -> str:
        lines = ["FeatureEncoding"]
        for spec in self.specs:
            lines.append(f"  {spec.name}  {spec.kind}, size {spec.size:,}, width {spec.width:,}")
        return "\n".join(lines)

    def get_config(self) -> dict[str, Any]:
        """Returns all that was learned as a dict that goes into JSON."""
        return {
            "features": [
                {"name": name, "kind": kind, "code": _plain(code)}
                for name, (kind, code) in self._codes.items()
            ]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureEncoding":
        """Makes the encoding whose `get_config` this was; it encodes equally."""
        return cls(
            {
                each["name"]: (each["kind"], code_from_config(each["kind"], each["code"]))
                for each in config["features"]
            }
        )


def feature_specs(
    features: FeatureEncoding | Sequence[FeatureSpec | Mapping[str, Any]],
) -> tuple[FeatureSpec, ...]:
    """Returns the specs of an encoding, or of a list of specs or of their configs.

    Raises:
        ValueError: If there is none, or two have one name.
    """
    given = features.specs if isinstance(features, FeatureEncoding) else features
    specs = tuple(one if isinstance(one, FeatureSpec) else FeatureSpec(**one) for one in given)
    names = [spec.name for spec in specs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Features must have names of their own, one at the least; got {names}.")
    return specs


def missing_features(specs: Sequence[FeatureSpec], count: int) -> dict[str, np.ndarray]:
    """Returns the arrays of `count` rows of which no feature is known, as `encode` gives them."""
    arrays = {}
    for spec in specs:
        dtype = np.int32 if spec.is_index else np.float32
        arrays[spec.name] = np.zeros((count, *spec.shape), dtype)
        if spec.kind in ("numeric", "date"):
            arrays[spec.name][:, 1] = 1.0
    return arrays


def known_features(specs: Sequence[FeatureSpec], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns which features are known, bool `[rows, features]`, of what `encode` gave."""
    known = []
    for spec in specs:
        array = np.asarray(arrays[spec.name])
        if spec.kind == "categorical":
            known.append(array > 0)
        elif spec.kind in ("numeric", "date"):
            known.append(array[:, 1] == 0)
        else:
            known.append((array != 0).any(axis=1))
    return np.stack(known, axis=1)


def _plain(code: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(code)
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()
    }


def _names(table: Any) -> list[str]:
    if isinstance(table, Mapping):
        return list(table)
    return list(table.column_names if isinstance(table, pa.Table) else table.columns)


def _columns(table: Columns, names: Sequence[str], ids: Any) -> dict[str, pa.ChunkedArray]:
    """Returns the named columns as Arrow's."""
    if isinstance(table, FeatureTable):
        check_columns(list(table.types), names, type(table).__name__)
        rows = table.table if ids is None else table.lookup(ids)
        return {name: rows[name] for name in names}
    if ids is not None:
        raise ValueError("ids are for a FeatureTable, which has a key.")
    check_columns(_names(table), names)
    if not isinstance(table, pa.Table | Mapping):
        table = from_frame(table, list(dict.fromkeys(names)), id_names=(), ids=None)
    return {name: _chunked(table[name], name) for name in names}


def _chunked(values: Any, name: str) -> pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return pa.chunked_array([vector_array(values, name)])
    return pa.chunked_array([pa.array(values, from_pandas=True)])
