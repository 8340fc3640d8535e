"""Who did what to which item, and when."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.columns import LogColumns, check_columns, from_frame
from tfrec_llm.data.feature_table import Catalogue, UserTable
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.reading import Paths, read_csv, read_parquet
from tfrec_llm.data.row_numbers import renumber, stable_order, take_rows
from tfrec_llm.errors import DataError, MixedTypeError, NullValueError

if TYPE_CHECKING:
    import pandas as pd

_ROLES = ("user", "item", "time", "behavior", "weight", "label")


class BehaviorLog:
    """Behaviours of users towards items, one a row, in any order.

    Make one with `from_pandas`, `from_arrow`, `from_parquet` or `from_csv`; these bring columns
    of other names and types into form. A log never changes: `take` and `concat` give new ones.

    Args:
        table: Columns in this order: `user` and `item` (int64 or string), `time` (timestamp in
            microseconds, int64 or float64), then where given `behavior` (string), `weight` and
            `label` (float32), then context columns of any type.
        catalogue: What is known of the items.
        users: What is known of the users.
        history: Of a held-out part, all that the same users did before; set by the splits.
        labels: Columns that are further labels, such as the click beside a conversion. They say
            what came of a row, so they are no context and nothing is predicted from them.

    Raises:
        MissingColumnError: If user, item, time or a label is not in the table.
        MixedTypeError: If the ids of the catalogue or the users are of another type.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"sku": ["A13", "B4", "A13"], "who": [7, 7, 8]})
        >>> log = BehaviorLog.from_pandas(frame, user="who", item="sku", time=None)
        >>> log
        BehaviorLog of 3 rows
          users  2
          items  2
          time   0 to 2
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        catalogue: Catalogue | None = None,
        users: UserTable | None = None,
        history: Optional["BehaviorLog"] = None,
        labels: Sequence[str] = (),
    ):
        check_columns(table.column_names, [*_ROLES[:3], *labels])
        others = [name for name in table.column_names if name not in _ROLES]
        self.table = table.select([n for n in _ROLES if n in table.column_names] + others)
        self.catalogue = catalogue
        self.users = users
        self.history = history
        self.labels = tuple(labels)
        _check_same_ids(self.table["item"], catalogue)
        _check_same_ids(self.table["user"], users)
        self._codes: dict[str, tuple[np.ndarray, pa.Array]] = {}
        self._order: np.ndarray | None = None

    @classmethod
    def from_pandas(
        cls,
        df: "pd.DataFrame",
        *,
        user: str = "user",
        item: str = "item",
        time: str | None = "time",
        behavior: str | None = None,
        weight: str | None = None,
        label: str | None = None,
        context: Sequence[str] = (),
        catalogue: Catalogue | None = None,
        users: UserTable | None = None,
        ids: str | None = None,
    ) -> "BehaviorLog":
        """Makes a log of a DataFrame.

        Args:
            df: One behaviour a row, in any order. NaN, None and NaT become nulls, which stay in
                the log until it is cleaned.
            user: Column of the user ids: integers or strings. Whole floats, which pandas makes
                of integers beside a missing one, become integers again.
            item: Column of the item ids, likewise.
            time: Column of the times: timestamps (with a time zone: converted to UTC), dates,
                integers, floats, or ISO 8601 text. None says that the rows are in time order.
            behavior: Column of the behaviour types, such as view, cart, purchase.
            weight: Column of the weights of the behaviours; finite numbers.
            label: Column of the labels, such as 1 for a click and 0 for none.
            context: Columns to keep under their own names, such as a device.
            catalogue: What is known of the items.
            users: What is known of the users.
            ids: `"string"` turns both id columns into strings, the cure for a column that mixes
                types.

        Returns:
            The log, with the rows in the order of `df`.

        Raises:
            MissingColumnError: If a column is not in `df`; says which there are.
            MixedTypeError: If a column mixes types, such as 7 and "A9".
            DataError: If ids are not whole, weights infinite, or times no times.
        """
        columns = LogColumns(user, item, time, behavior, weight, label, context, ids)
        table = from_frame(df, columns.names, id_names=columns.id_names, ids=ids)
        return cls(columns.canonical(table), catalogue=catalogue, users=users)

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        *,
        user: str = "user",
        item: str = "item",
        time: str | None = "time",
        behavior: str | None = None,
        weight: str | None = None,
        label: str | None = None,
        context: Sequence[str] = (),
        catalogue: Catalogue | None = None,
        users: UserTable | None = None,
        ids: str | None = None,
    ) -> "BehaviorLog":
        """Makes a log of an Arrow table, or of what Arrow reads as one, such as a Polars frame.

        Arguments, result and errors are those of `from_pandas`.

        Example:
            >>> table = pa.table({"user": [1, 1], "item": ["A13", "B4"], "time": [30, 10]})
            >>> BehaviorLog.from_arrow(table).times()
            array([30, 10])
        """
        columns = LogColumns(user, item, time, behavior, weight, label, context, ids)
        if not isinstance(table, pa.Table):
            table = pa.table(table)
        return cls(columns.canonical(table), catalogue=catalogue, users=users)

    @classmethod
    def from_parquet(
        cls,
        path: Paths,
        *,
        user: str = "user",
        item: str = "item",
        time: str | None = "time",
        behavior: str | None = None,
        weight: str | None = None,
        label: str | None = None,
        context: Sequence[str] = (),
        catalogue: Catalogue | None = None,
        users: UserTable | None = None,
        ids: str | None = None,
    ) -> "BehaviorLog":
        """Makes a log of a Parquet file, several, or all those of a folder and its subfolders.

        Files are read in the order of their names; only the named columns are read. A part of a
        path such as `day=2024-05-01` counts as a column of text. Other arguments and errors are
        those of `from_pandas`.

        Raises:
            DataFileError: If there is no such file, or one is truncated or damaged.
        """
        columns = LogColumns(user, item, time, behavior, weight, label, context, ids)
        table = read_parquet(path, columns=columns.names, id_names=columns.id_names, ids=ids)
        return cls(columns.canonical(table), catalogue=catalogue, users=users)

    @classmethod
    def from_csv(
        cls,
        path: Paths,
        *,
        user: str = "user",
        item: str = "item",
        time: str | None = "time",
        behavior: str | None = None,
        weight: str | None = None,
        label: str | None = None,
        context: Sequence[str] = (),
        catalogue: Catalogue | None = None,
        users: UserTable | None = None,
        ids: str | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> "BehaviorLog":
        """Makes a log of a CSV file with a header, several, or all those of a folder.

        Ids are integers if every one is written as one (`7`, not `007`), else strings. Empty
        fields and unquoted NaN, NULL and null are missing values. Compressed files (`.csv.gz`)
        are read as such. Other arguments and errors are those of `from_pandas`.

        Args:
            delimiter: What separates the fields.
            encoding: How the text is encoded.

        Raises:
            DataFileError: If there is no such file, or one is no CSV of this encoding.
        """
        columns = LogColumns(user, item, time, behavior, weight, label, context, ids)
        table = read_csv(
            path,
            columns=columns.names,
            id_names=columns.id_names,
            ids=ids,
            delimiter=delimiter,
            encoding=encoding,
        )
        return cls(columns.canonical(table), catalogue=catalogue, users=users)

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        lines = [f"BehaviorLog of {len(self):,} rows"]
        lines += [f"  users  {self.num_users:,}", f"  items  {self.num_items:,}"]
        span = pc.min_max(self.table["time"])
        if span["min"].is_valid:
            lines.append(f"  time   {span['min'].as_py()} to {span['max'].as_py()}")
        if self.has("behavior"):
            counts = sorted(
                pc.value_counts(self.table["behavior"]).to_pylist(), key=lambda c: -c["counts"]
            )
            shown = ", ".join(f"{c['values']} {c['counts']:,}" for c in counts[:8])
            lines.append(f"  behaviours  {shown}{', ...' if len(counts) > 8 else ''}")
        if self.context:
            lines.append(f"  context  {', '.join(self.context)}")
        return "\n".join(lines)

    @property
    def user(self) -> pa.ChunkedArray:
        """The user of every row."""
        return self.table["user"]

    @property
    def item(self) -> pa.ChunkedArray:
        """The item of every row."""
        return self.table["item"]

    @property
    def context(self) -> list[str]:
        """Names of the context columns: of all that are no label and have no other part."""
        return [n for n in self.table.column_names if n not in _ROLES and n not in self.labels]

    @property
    def num_users(self) -> int:
        """How many different users there are."""
        return len(self.encoded("user")[1])

    @property
    def num_items(self) -> int:
        """How many different items there are."""
        return len(self.encoded("item")[1])

    def has(self, name: str) -> bool:
        """Returns whether there is such a column, `"behavior"` for instance."""
        return name in self.table.column_names

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns a column by name.

        Raises:
            MissingColumnError: If it is not there; says which there are.
        """
        check_columns(self.table.column_names, [name], "log")
        return self.table[name]

    def times(self) -> np.ndarray:
        """Returns the time of every row as int64.

        Timestamps are microseconds since 1970 (UTC), integers are as they are, and floats are
        multiplied by a million, so that seconds with a fraction become microseconds.

        Raises:
            NullValueError: If a time is missing.
        """
        self.require_complete("time")
        times = self.table["time"]
        if pa.types.is_floating(times.type):
            return np.round(times.to_numpy() * 1e6).astype(np.int64)
        return times.cast(pa.int64()).to_numpy()

    def encoded(self, name: str) -> tuple[np.ndarray, pa.Array]:
        """Numbers a column's values by first appearance; a missing value has the number -1.

        Returns:
            An int64 array, the number of every row's value, and the values in that order.
        """
        if name not in self._codes:
            codes, values = dictionary_encode(self.column(name))
            codes.flags.writeable = False
            self._codes[name] = codes, values
        return self._codes[name]

    def user_codes(self) -> tuple[np.ndarray, pa.Array]:
        """Numbers the users by first appearance.

        Returns:
            An int64 array, the number of every row's user, and the users in that order.

        Raises:
            NullValueError: If a user is missing.
        """
        self.require_complete("user")
        return self.encoded("user")

    def item_codes(self) -> tuple[np.ndarray, pa.Array]:
        """Numbers the items by first appearance, as `user_codes` does the users."""
        self.require_complete("item")
        return self.encoded("item")

    def order(self) -> np.ndarray:
        """Returns int64 row numbers that sort by user (by first appearance), then by time.

        Rows of one user with equal times keep their order.

        Raises:
            NullValueError: If a user or a time is missing.
        """
        if self._order is None:
            codes, users = self.user_codes()
            times = self.times()
            if (times[1:] >= times[:-1]).all():
                self._order = stable_order(codes, len(users))
            else:
                by_time = np.argsort(times, kind="stable")
                self._order = by_time[stable_order(codes[by_time], len(users))]
            self._order.flags.writeable = False
        return self._order

    def require_complete(self, *names: str) -> None:
        """Raises NullValueError if a value is missing.

        Args:
            *names: The columns looked at; user, item and time where none is given.
        """
        for name in names or _ROLES[:3]:
            missing = self.column(name).null_count
            if missing:
                raise NullValueError(
                    f"{missing:,} of {len(self):,} rows have no {name}. Remove them with "
                    "clean(log, [DropNulls()]) first."
                )

    def take(self, rows: Any, *, history: Optional["BehaviorLog"] = None) -> "BehaviorLog":
        """Returns a log of some of the rows.

        Args:
            rows: Row numbers, in the order wanted, or a boolean for every row.
            history: The result's history; None keeps that of this log.

        Returns:
            The rows, with the same catalogue and users.

        Raises:
            IndexError: If a row is not there, or the mask has another length.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(f"A mask of shape {rows.shape} does not fit {len(self):,} rows.")
            table = self.table.filter(pa.array(rows))
        else:
            rows = rows.astype(np.int64, casting="safe") if rows.size else rows.astype(np.int64)
            table = take_rows(self.table, rows)
        taken = BehaviorLog(
            table,
            catalogue=self.catalogue,
            users=self.users,
            history=self.history if history is None else history,
            labels=self.labels,
        )
        # Renumbering what is numbered already is far cheaper than hashing strings anew.
        taken._codes = {
            name: renumber(codes[rows], values) for name, (codes, values) in self._codes.items()
        }
        return taken

    def concat(self, other: "BehaviorLog") -> "BehaviorLog":
        """Returns a log of this one's rows and then the other's.

        Catalogue, users and history are this log's, or the other's where this has none.

        Raises:
            DataError: If one of them has a column that the other lacks.
            MixedTypeError: If ids or times are of different types.
        """
        ours, theirs = self.table, other.table
        differing = set(ours.column_names) ^ set(theirs.column_names)
        if differing:
            raise DataError(f"Only one of the two logs has the columns {sorted(differing)}.")
        if len(self) and len(other):
            for name in ours.column_names:
                if ours[name].type != theirs[name].type:
                    raise MixedTypeError(
                        f"Column {name!r} is {ours[name].type} in one log and "
                        f"{theirs[name].type} in the other. Convert one of them."
                    )
            table = pa.concat_tables([ours, theirs.select(ours.column_names)])
        else:
            table = ours if len(self) else theirs
        return BehaviorLog(
            table,
            catalogue=other.catalogue if self.catalogue is None else self.catalogue,
            users=other.users if self.users is None else self.users,
            history=other.history if self.history is None else self.history,
            labels=tuple(dict.fromkeys(self.labels + other.labels)),
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Returns the rows as a DataFrame with the canonical column names."""
        return self.table.to_pandas()

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows as one Parquet file; what was there is replaced only by a whole file.

        `from_parquet(path)` reads it back; name behaviour, weight, label and context there.
        """
        with replace_file(path) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")


def _check_same_ids(ids: pa.ChunkedArray, features: Catalogue | UserTable | None) -> None:
    if features is None or ids.null_count == len(ids) or not len(features):
        return
    if ids.type != features.ids.type:
        own = ids.drop_null()[0].as_py()
        raise MixedTypeError(
            f"The log's {features.key} ids are {ids.type} (first {own!r}), those of the "
            f"{type(features).__name__} {features.ids.type} (first {features.ids[0].as_py()!r}), "
            'so none would match. Pass ids="string" to both.'
        )
