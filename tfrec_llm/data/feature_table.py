"""What is known of items and users, one of them a row, in typed columns."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.columns import check_columns, check_ids_argument, from_frame, id_column
from tfrec_llm.data.feature_types import (
    FEATURE_TYPES,
    FeatureType,
    feature_column,
    infer_type,
    vector_array,
)
from tfrec_llm.data.id_index import IdIndex, dictionary_encode
from tfrec_llm.data.reading import Paths, opened_parquet, read_csv, read_parquet
from tfrec_llm.errors import DataError, DataFileError, NullValueError

if TYPE_CHECKING:
    import pandas as pd

_METADATA = b"tfrec_llm.feature_table.1"


class FeatureTable:
    """A table with a key and typed features, which joins to a log by its key.

    The types say what a feature is for models and for people: `"categorical"` (kept as strings),
    `"multi"` (lists of strings), `"numeric"` (int64 or float64), `"text"` (strings), `"date"`
    (timestamps in microseconds) and `"vector"` (lists of float32, all of one size).

    Args:
        table: One item or user a row.
        key: Column of the ids, which are integers or strings.
        types: The type of a column, by name; inferred for those not given.
        ids: `"string"` turns the ids into strings.
        separator: What separates the values of a `"multi"` column that is given as text.

    Attributes:
        table: The key, then the features, in the forms said above.
        key: Name of the key column.
        types: The type of each feature, by name.

    Raises:
        MissingColumnError: If the key or a column of `types` is not in the table.
        NullValueError: If a key is missing.
        DataError: If a key stands in several rows, or values are not of their type.

    Example:
        >>> table = pa.table({"sku": ["A13", "B4"], "kind": ["top", "skirt"], "usd": [43, 28.5]})
        >>> features = FeatureTable(table, key="sku")
        >>> features.types
        {'kind': 'categorical', 'usd': 'numeric'}
        >>> features.describe("A13")
        'top, 43.00'
        >>> features.lookup(["B4", "Z9"])["usd"].to_pylist()
        [28.5, None]
    """

    key_name: ClassVar[str | None] = None
    """The name that the key column gets; its own where None."""

    def __init__(
        self,
        table: pa.Table,
        *,
        key: str | None = None,
        types: Mapping[str, FeatureType] | None = None,
        ids: str | None = None,
        separator: str = "|",
    ):
        source = self._source(key)
        check_ids_argument(ids)
        types = dict(types or {})
        check_columns(table.column_names, [source, *types])
        check_columns(table.column_names, table.column_names)
        for name, kind in types.items():
            if kind not in FEATURE_TYPES:
                raise ValueError(f"{name!r} has the type {kind!r}; types are {FEATURE_TYPES}.")
        self.key = self.key_name or source
        if self.key != source and self.key in table.column_names:
            raise DataError(
                f"The key {source!r} gets the name {self.key!r}, which another column has. "
                "Rename or drop that one."
            )
        columns = {self.key: id_column(table[source], source, ids)}
        self._index = _index(columns[self.key], source, type(self).__name__)
        self.types: dict[str, FeatureType] = {}
        for name in table.column_names:
            if name != source:
                self.types[name] = types.get(name) or infer_type(table[name])
                kind = self.types[name]
                columns[name] = feature_column(table[name], name, kind, separator=separator)
        self.table = pa.table(columns)

    @classmethod
    def _source(cls, key: str | None) -> str:
        key = key or cls.key_name
        if key is None:
            raise TypeError("key is missing: the column of the ids.")
        return key

    @classmethod
    def from_pandas(
        cls,
        df: "pd.DataFrame",
        *,
        key: str | None = None,
        types: Mapping[str, FeatureType] | None = None,
        ids: str | None = None,
        separator: str = "|",
    ) -> Self:
        """Makes a table of a DataFrame, of which the key may be a column or the index.

        Arguments and errors are those of the class.
        """
        source = cls._source(key)
        names = list(df.columns)
        names = names if source in names else [source, *names]
        table = from_frame(df, names, id_names=[source], ids=ids)
        return cls(table, key=key, types=types, ids=ids, separator=separator)

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        *,
        key: str | None = None,
        types: Mapping[str, FeatureType] | None = None,
        ids: str | None = None,
        separator: str = "|",
    ) -> Self:
        """Makes a table of an Arrow table, or of what Arrow reads as one."""
        table = table if isinstance(table, pa.Table) else pa.table(table)
        return cls(table, key=key, types=types, ids=ids, separator=separator)

    @classmethod
    def from_parquet(
        cls,
        path: Paths,
        *,
        key: str | None = None,
        types: Mapping[str, FeatureType] | None = None,
        ids: str | None = None,
        separator: str = "|",
        columns: Sequence[str] | None = None,
    ) -> Self:
        """Makes a table of Parquet files; see `BehaviorLog.from_parquet` for paths and errors.

        Args:
            columns: The features to read; all where None.
        """
        source = cls._source(key)
        names = None if columns is None else [source, *columns]
        table = read_parquet(path, columns=names, id_names=[source], ids=ids)
        return cls(table, key=key, types=types, ids=ids, separator=separator)

    @classmethod
    def from_csv(
        cls,
        path: Paths,
        *,
        key: str | None = None,
        types: Mapping[str, FeatureType] | None = None,
        ids: str | None = None,
        separator: str = "|",
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> Self:
        """Makes a table of CSV files; see `BehaviorLog.from_csv` for paths, ids and errors.

        Args:
            columns: The features to read; all where None.
            delimiter: What separates the fields.
            encoding: How the text is encoded.
        """
        source = cls._source(key)
        table = read_csv(
            path,
            columns=None if columns is None else [source, *columns],
            id_names=[source],
            ids=ids,
            delimiter=delimiter,
            encoding=encoding,
        )
        return cls(table, key=key, types=types, ids=ids, separator=separator)

    def __len__(self) -> int:
        return self.table.num_rows

    def __contains__(self, id: Any) -> bool:
        return bool(self._index.positions([id])[0] >= 0)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} of {len(self):,} rows by {self.key}"]
        for name, kind in self.types.items():
            values = self.table[name]
            missing = f", {values.null_count:,} missing" if values.null_count else ""
            lines.append(f"  {name}  {kind}{missing}")
        return "\n".join(lines)

    @property
    def ids(self) -> pa.Array:
        """The keys, in the order of the rows."""
        return self._index.ids

    @property
    def schema(self) -> dict[str, Any]:
        """Key and types as a dict that goes into JSON."""
        return {"key": self.key, "types": dict(self.types)}

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns a column by name.

        Raises:
            MissingColumnError: If it is not there; says which there are.
        """
        check_columns(self.table.column_names, [name], type(self).__name__)
        return self.table[name]

    def lookup(self, ids: Any) -> pa.Table:
        """Joins to ids.

        Args:
            ids: A list or array of ids, in any order and as often as you like.

        Returns:
            A table with a row for each of `ids`, in their order. Where an id is not known, its
            features are null.

        Raises:
            MixedTypeError: If the ids are of another type than the keys.
        """
        asked = self._index.as_own_type(ids)
        rows = self._index.positions(asked)
        found = self.table.take(pa.array(rows, mask=rows < 0))
        return found.set_column(0, self.key, asked)

    def describe(self, ids: Any, *, columns: Sequence[str] | None = None) -> Any:
        """Says in words what is known, for people to read.

        Args:
            ids: An id, or a list or array of them.
            columns: The features to name; all but vectors where None.

        Returns:
            A string such as `"blouse, white, 43.00"`, or a list of strings for several ids.
            An id of which nothing is known is itself returned as a string.

        Raises:
            MissingColumnError: If one of `columns` is not there.
        """
        if isinstance(ids, str | int) or not hasattr(ids, "__len__"):
            return self.describe([ids], columns=columns)[0]
        told = [name for name, kind in self.types.items() if kind != "vector"]
        names = told if columns is None else list(columns)
        check_columns(self.table.column_names, names, type(self).__name__)
        return [
            ", ".join(_words(row[name]) for name in names if row[name] is not None)
            or str(row[self.key])
            for row in self.lookup(ids).select([self.key, *names]).to_pylist()
        ]

    def updated(self, other: "FeatureTable") -> Self:
        """Returns a table with another's rows, too; of an id in both the other's row counts.

        A feature that only one of them has is missing for the rows of the other.

        Args:
            other: Such as the rows of new items.

        Raises:
            DataError: If a feature of both has other types of values in the two.
            MixedTypeError: If the ids are of different types.

        Example:
            >>> items = Catalogue(pa.table({"item": ["A13", "B4"], "usd": [43, 28]}))
            >>> newer = Catalogue(pa.table({"item": ["B4", "C7"], "usd": [25.5, 9.0]}))
            >>> items.updated(newer).column("usd").to_pylist()
            [43.0, 25.5, 9.0]
        """
        theirs = {self.key: self._index.as_own_type(other.table[other.key])}
        for name, kind in other.types.items():
            kind = self.types.get(name, kind)
            theirs[name] = feature_column(other.table[name], name, kind, separator="|")
        kept = self.table.filter(pa.array(other._index.positions(self.ids) < 0))
        try:
            table = pa.concat_tables([kept, pa.table(theirs)], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"The features of the two tables do not fit: {error}.") from error
        return type(self)(table, key=self.key, types=other.types | self.types)

    def with_vectors(self, name: str, vectors: np.ndarray) -> Self:
        """Returns a table with one more feature, a vector a row, such as of its picture or text.

        Args:
            name: Of the feature; one of this name is replaced.
            vectors: Finite numbers `[rows, width]`, in the order of `ids`.

        Raises:
            DataError: If the shape is another, or a number is not finite.

        Example:
            >>> items = Catalogue(pa.table({"item": ["A13", "B4"]}))
            >>> items.with_vectors("image", np.eye(2, 8)).types
            {'image': 'vector'}
        """
        if len(vectors) != len(self):
            raise DataError(f"{len(vectors):,} vectors were given for {len(self):,} rows.")
        table = self.table.drop_columns([name]) if name in self.types else self.table
        table = table.append_column(name, vector_array(np.asarray(vectors), name))
        return type(self)(table, key=self.key, types=self.types | {name: "vector"})

    def to_pandas(self) -> "pd.DataFrame":
        """Returns key and features as a DataFrame."""
        return self.table.to_pandas()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a Parquet file that holds the types; an old file survives a failure."""
        schema = {_METADATA: json.dumps(self.schema).encode()}
        with replace_file(path) as temporary:
            table = self.table.replace_schema_metadata(schema)
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Raises:
            DataFileError: If the file is missing or damaged, or was not written by `save` of
                this class.
        """
        with opened_parquet(path) as file:
            table = file.read()
        metadata = (table.schema.metadata or {}).get(_METADATA)
        if metadata is None:
            raise DataFileError(f"{path} was not written by save(). Read it with from_parquet().")
        schema = json.loads(metadata)
        if cls.key_name not in (None, schema["key"]):
            raise DataFileError(f"{path} holds a table by {schema['key']}, no {cls.__name__}.")
        types = cast(dict[str, FeatureType], schema["types"])
        return cls(table, key=schema["key"], types=types)


class Catalogue(FeatureTable):
    """What is known of the items: category, brand, price, title; a `FeatureTable` by item.

    Example:
        >>> items = pa.table({"sku": [7, 9], "title": ["White blouse", "Long red skirt"]})
        >>> Catalogue(items, key="sku")
        Catalogue of 2 rows by item
          title  text
    """

    key_name = "item"


class UserTable(FeatureTable):
    """What is known of the users: age, gender, interests; a `FeatureTable` by user.

    Example:
        >>> users = pa.table({"user": [1, 2], "interests": ["sport|music", None]})
        >>> UserTable(users, types={"interests": "multi"}).column("interests").to_pylist()
        [['sport', 'music'], None]
    """

    key_name = "user"


def _index(ids: pa.ChunkedArray, name: str, holder: str) -> IdIndex:
    if ids.null_count:
        raise NullValueError(
            f"{ids.null_count:,} of {len(ids):,} rows have no {name!r}, the key. Remove them."
        )
    codes, unique = dictionary_encode(ids)
    if len(unique) < len(ids):
        counts = pa.array(codes).value_counts().to_pylist()
        first = next(unique[c["values"]].as_py() for c in counts if c["counts"] > 1)
        raise DataError(
            f"{len(ids) - len(unique):,} of {len(ids):,} rows repeat a {name!r} of an earlier "
            f"row, first {first!r}. Keep one row for each, for instance with "
            f"df.drop_duplicates({name!r})."
        )
    return IdIndex(ids, holder=holder)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_words(one) for one in value)
    if isinstance(value, float):
        return f"{value:.2f}"
    if hasattr(value, "hour") and not (value.hour or value.minute or value.second):
        return value.date().isoformat()
    return str(value)
