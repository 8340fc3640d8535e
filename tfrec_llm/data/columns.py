"""Columns as they come, made into the columns and types that the library keeps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.errors import DataError, MissingColumnError, MixedTypeError

TIMESTAMP = pa.timestamp("us")
INSTANT = pa.timestamp("us", tz="UTC")
_EXACT_FLOAT = 2**53  # from here on float64 skips integers, so an id may be another's


@dataclass(frozen=True)
class LogColumns:
    """Which column of a table plays which part in a behaviour log.

    Attributes:
        user: Column of the user ids.
        item: Column of the item ids.
        time: Column of the times; None where the rows are in time order.
        behavior: Column of the behaviour types, or None.
        weight: Column of the weights, or None.
        label: Column of the labels, or None.
        context: Columns kept under their own names.
        ids: `"string"` turns both id columns into strings; None keeps their types.
    """

    user: str = "user"
    item: str = "item"
    time: str | None = "time"
    behavior: str | None = None
    weight: str | None = None
    label: str | None = None
    context: Sequence[str] | str = ()
    ids: str | None = None

    def __post_init__(self) -> None:
        check_ids_argument(self.ids)
        taken = {"user", "item", "time", "behavior", "weight", "label"} & set(self.context_names)
        if taken:
            raise DataError(
                f"A context column cannot be called {sorted(taken)}: the log uses that name. "
                "Rename the column, or leave it out of context."
            )

    @property
    def context_names(self) -> tuple[str, ...]:
        return (self.context,) if isinstance(self.context, str) else tuple(self.context)

    @property
    def id_names(self) -> tuple[str, ...]:
        return (self.user, self.item)

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        roles = (self.user, self.item, self.time, self.behavior, self.weight, self.label)
        named = [name for name in roles if name is not None]
        return list(dict.fromkeys([*named, *self.context_names]))

    def canonical(self, table: pa.Table) -> pa.Table:
        """Returns the table of a `BehaviorLog`: user, item, time, then what else is there."""
        check_columns(table.column_names, self.names)
        columns = {
            "user": id_column(table[self.user], self.user, self.ids),
            "item": id_column(table[self.item], self.item, self.ids),
        }
        if self.time is None:
            columns["time"] = pa.chunked_array([np.arange(table.num_rows, dtype=np.int64)])
        else:
            columns["time"] = time_column(table[self.time], self.time)
        if self.behavior is not None:
            columns["behavior"] = text_column(table[self.behavior], self.behavior)
        if self.weight is not None:
            columns["weight"] = number_column(table[self.weight], self.weight, pa.float32())
        if self.label is not None:
            columns["label"] = number_column(table[self.label], self.label, pa.float32())
        for name in self.context_names:
            # Text comes in several layouts, by which two logs would not join.
            text = is_text(table[name].type)
            columns[name] = table[name].cast(pa.string()) if text else table[name]
        return pa.table(columns)


def check_ids_argument(ids: str | None) -> None:
    if ids not in (None, "string"):
        raise ValueError(f'ids is {ids!r}; it takes "string", or None to keep the type.')


def check_columns(present: Sequence[str], needed: Sequence[str], where: str = "table") -> None:
    """Raises MissingColumnError, naming the columns there are, unless all `needed` are there."""
    missing = [name for name in needed if name not in present]
    if missing:
        shown = ", ".join(repr(name) for name in present[:30])
        more = f" and {len(present) - 30} more" if len(present) > 30 else ""
        what = f"column {missing[0]!r}" if len(missing) == 1 else f"columns {missing}"
        raise MissingColumnError(f"The {where} has no {what}. It has {shown or 'none'}{more}.")
    twice = [name for name in needed if list(present).count(name) > 1]
    if twice:
        raise DataError(f"The {where} has several columns called {twice[0]!r}. Rename them.")


def from_frame(frame: Any, names: Sequence[str], *, id_names: Sequence[str], ids: str | None):
    """Returns the named columns of a pandas DataFrame as an Arrow table; NaN becomes null.

    Raises:
        MissingColumnError: If a column is not there.
        MixedTypeError: If a column holds Python objects of several types.
    """
    if frame.index.name in names and frame.index.name not in frame.columns:
        frame = frame.reset_index()
    check_columns(list(frame.columns), names)
    columns = {}
    for name in names:
        as_text = ids == "string" and name in id_names
        try:
            columns[name] = pa.Array.from_pandas(frame[name])
            if as_text and isinstance(columns[name].type, pa.BaseExtensionType):
                columns[name] = _objects_as_text(frame[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            if as_text:
                columns[name] = _objects_as_text(frame[name])
            else:
                cure = 'Pass ids="string" to read all as strings.'
                cure = cure if name in id_names else "Convert it to one type."
                raise MixedTypeError(
                    f"Column {name!r} holds values of several types or of one that Arrow does "
                    f"not know: {_kinds(frame[name])}. {cure}"
                ) from error
    return pa.table(columns)


def _kinds(series: Any) -> str:
    """Says `2 int (first 7), 1 str (first 'A9')` of a column of Python objects."""
    values = series[series.notna()]
    kinds = values.map(lambda value: type(value).__name__)
    return ", ".join(
        f"{count:,} {kind} (first {values[kinds == kind].iloc[0]!r})"
        for kind, count in kinds.value_counts(sort=False).items()
    )


def _objects_as_text(series: Any) -> pa.Array:
    import pandas as pd

    codes, unique = pd.factorize(series)
    texts = [
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        for value in unique
    ]
    return pa.array(texts, pa.string()).take(pa.array(codes, mask=codes < 0))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a dictionary-encoded column decoded, another as it is."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def id_column(column: pa.ChunkedArray, name: str, ids: str | None = None) -> pa.ChunkedArray:
    """Returns ids as int64 or strings.

    Integers of any width, whole floats and whole decimals become int64, text in any encoding
    becomes strings. NaN becomes null. With `ids="string"` all become strings, `7.0` as `"7"`.

    Raises:
        DataError: If the ids are floats that are not whole or beyond 2**53, integers beyond
            int64, or of a type that is no id.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(column), pa.string())])
    if is_text(kind) or _is_binary(kind):
        try:
            return column.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise DataError(f"Column {name!r} holds bytes that are not UTF-8 text.") from error
    cure = 'Pass ids="string" to use them as they are written.'
    if pa.types.is_floating(kind):
        whole = whole_numbers(column)
        if whole is None and ids is None:
            raise DataError(f"Column {name!r} holds {_not_whole(column)}. Ids are whole. {cure}")
        column = column if whole is None else whole
    elif pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            if ids is None:
                raise DataError(f"Column {name!r}: {error}. Ids are int64. {cure}") from error
    elif ids is None:
        raise DataError(f"Column {name!r} holds {kind}; ids are strings or integers. {cure}")
    try:
        return column.cast(pa.string()) if ids == "string" else column
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"Column {name!r} holds {kind}, which cannot become strings.") from error


def ids_from_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns text as int64 if that loses nothing, else as it is: `"007"` is not `7`."""
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    return numbers if numbers.cast(pa.string()).equals(column) else column


def whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Returns floats as int64 with nulls for NaN, or None if that would change a value."""
    column = without_nan(column)
    bounds = pc.min_max(column).as_py()
    if bounds["max"] is not None and max(-bounds["min"], bounds["max"]) > _EXACT_FLOAT:
        return None
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns floats with null in the place of NaN."""
    nan = pc.is_nan(column)
    if not pc.any(nan).as_py():
        return column
    return pc.if_else(nan, pa.scalar(None, column.type), column)


def _not_whole(column: pa.ChunkedArray) -> str:
    values = column.to_numpy()
    # Not finite, with a fraction, or too large to be exact; NaN is a missing value.
    bad = np.flatnonzero(
        ~np.isnan(values) & ~((values == np.floor(values)) & (np.abs(values) <= _EXACT_FLOAT))
    )
    first = float(values[bad[0]])
    large = abs(first) > _EXACT_FLOAT and np.isfinite(first)
    what = "floats too large to be exact" if large else "floats that are not whole"
    return f"{what}: {bad.size:,} of {values.size:,}, first {first} in row {bad[0]:,}"


def time_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Returns times as timestamps in microseconds, int64, or float64 where not all are whole.

    Timestamps and dates become timestamps; those with a time zone become UTC. Text is read as
    whole numbers or as ISO 8601. NaN, NaT and empty text become null.

    Raises:
        DataError: If a text is no time, a float is infinite or the type is no time.
        MixedTypeError: If texts are of several forms, such as with and without a time zone.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(column), pa.int64())])
    if pa.types.is_timestamp(kind):
        return column.cast(TIMESTAMP if kind.tz is None else INSTANT, safe=False)
    if pa.types.is_date(kind):
        return column.cast(TIMESTAMP)
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(f"Column {name!r}: {error}. Times are int64.") from error
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column = without_nan(column.cast(pa.float64()))
        # Scaled by a million, as times() does, it must fit into int64.
        largest = pc.max(pc.abs(column)).as_py()
        whole = whole_numbers(column)
        if whole is None and largest is not None and largest >= 2**63 / 1_000_000:
            raise DataError(
                f"Column {name!r} holds times up to {largest}; fractional times go up to 9.2e12. "
                "Convert them to integers or timestamps."
            )
        return column if whole is None else whole
    if is_text(kind) or _is_binary(kind):
        return _times_from_text(column.cast(pa.string()), name)
    raise DataError(
        f"Column {name!r} holds {kind}; times are timestamps, dates, numbers or ISO 8601 text."
    )


def _times_from_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    # Nanoseconds are only parsed as such; two of one microsecond keep their row order.
    kinds = (pa.int64(), TIMESTAMP, INSTANT, pa.timestamp("ns"), pa.timestamp("ns", tz="UTC"))
    for kind in kinds:
        try:
            parsed = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        return time_column(parsed, name)
    # On the way to an error speed is no concern.
    texts = column.to_pylist()
    found = {row: _kind_of_time(text) for row, text in enumerate(texts) if text is not None}
    bad = [row for row, kind in found.items() if kind is None]
    if bad:
        raise DataError(
            f"Column {name!r}: {len(bad):,} of {len(texts):,} values are no times as ISO 8601 "
            f"writes them, first {texts[bad[0]]!r} in row {bad[0]:,}. Convert the column, for "
            "instance with pandas.to_datetime(column, format=...)."
        )
    counts = ", ".join(f"{n:,} {kind}" for kind, n in Counter(found.values()).items())
    raise MixedTypeError(f"Column {name!r} mixes times of several forms: {counts}. Give all one.")


def _kind_of_time(text: str) -> str | None:
    for kind, words in (
        (pa.int64(), "numbers"),
        (pa.timestamp("ns"), "without a time zone"),
        (pa.timestamp("ns", tz="UTC"), "with a time zone"),
    ):
        try:
            pa.scalar(text).cast(kind)
        except pa.ArrowInvalid:
            continue
        return words
    return None


def text_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Returns words: text as it is, whole numbers and booleans as they are written."""
    column = plain(column)
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), pa.string())])
    if pa.types.is_floating(column.type):
        whole = whole_numbers(column)
        column = column if whole is None else whole
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"Column {name!r} holds {column.type}, which is no text.") from error


def number_column(column: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """Returns finite numbers of the type `kind`; NaN becomes null.

    Raises:
        DataError: If a value is infinite or no number.
    """
    column = plain(column)
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if not _is_number(column.type) and not is_text(column.type):
        raise DataError(f"Column {name!r} holds {column.type}, which are no numbers.")
    if pa.types.is_integer(column.type):
        return column.cast(kind, safe=pa.types.is_integer(kind))
    try:
        numbers = without_nan(column.cast(pa.float64()))
    except pa.ArrowInvalid as error:
        raise DataError(f"Column {name!r} holds values that are no numbers: {error}.") from error
    infinite = pc.sum(pc.is_inf(numbers.cast(kind, safe=False))).as_py() or 0
    if infinite:
        raise DataError(
            f"Column {name!r} holds {infinite:,} infinite values. Remove or replace them."
        )
    return numbers.cast(kind, safe=False)


def _is_number(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )
