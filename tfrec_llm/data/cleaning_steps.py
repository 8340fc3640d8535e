"""The steps of a cleaning: each tells of every row of a log whether it stays."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.columns import check_columns
from tfrec_llm.data.duration import Duration, duration_of
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.row_numbers import take_rows
from tfrec_llm.errors import DataError

Moment = datetime.datetime | datetime.date | np.datetime64 | str | int | float


@dataclass(frozen=True)
class DropNulls:
    """Drops rows that lack a value.

    Args:
        columns: Where to look: user, item and time if none are named.

    Raises:
        MissingColumnError: If the log has no such column.

    Example:
        >>> table = pa.table({"user": [1, None], "item": ["A", "B"], "time": [1, 2]})
        >>> DropNulls()(BehaviorLog.from_arrow(table))
        array([ True, False])
    """

    columns: Sequence[str] = ("user", "item", "time")

    @property
    def name(self) -> str:
        own = tuple(self.columns) == ("user", "item", "time")
        return "drop nulls" if own else f"drop nulls of {', '.join(self.columns)}"

    def __call__(self, log: BehaviorLog) -> np.ndarray:
        kept = np.ones(len(log), bool)
        for name in self.columns:
            column = log.column(name)
            if column.null_count:
                kept &= column.is_valid().to_numpy()
        return kept


@dataclass(frozen=True)
class DropDuplicates:
    """Drops rows that equal an earlier one in every column, context included.

    Such rows come of a log that was written or read twice. Nulls equal each other.

    Args:
        columns: Compare only these, such as `("user", "item")` for each pair's first row.

    Example:
        >>> table = pa.table({"user": [1, 1, 1], "item": ["A", "A", "A"], "time": [5, 5, 6]})
        >>> DropDuplicates()(BehaviorLog.from_arrow(table))
        array([ True, False,  True])
    """

    columns: Sequence[str] | None = None

    @property
    def name(self) -> str:
        return "drop duplicates" + (f" of {', '.join(self.columns)}" if self.columns else "")

    def __call__(self, log: BehaviorLog) -> np.ndarray:
        names = list(self.columns or log.table.column_names)
        check_columns(log.table.column_names, names, "log")
        # Rows that share none of these hashes have no equal. The few that do are compared.
        hashed = np.zeros(len(log), np.uint64)
        for name in [name for name in names if name in ("user", "item", "time")] or names[:1]:
            hashed = _mixed(hashed ^ _as_numbers(log, name))
        order = np.argsort(hashed, kind="stable")
        same = hashed[order[1:]] == hashed[order[:-1]]
        shared = np.zeros(len(log), bool)
        shared[order[1:][same]] = shared[order[:-1][same]] = True
        rows = np.flatnonzero(shared)
        kept = np.ones(len(log), bool)
        if rows.size:
            compared = take_rows(log.table.select(names), rows)
            columns = [_comparable(column) for column in compared.columns]
            keys = [str(place) for place in range(len(names))]
            table = pa.table([*columns, pa.array(rows)], names=[*keys, "row"])
            groups = table.group_by(keys).aggregate([("row", "min")])
            kept[rows] = False
            kept[groups["row_min"].to_numpy()] = True
        return kept


@dataclass(frozen=True)
class DropRepeats:
    """Drops a behaviour that its user did just before: the reload of a page, the double click.

    A repeat has the user, the item and, where the log has them, the behaviour type of an
    earlier row. Of a run of repeats the first stays.

    Args:
        window: A repeat lies at most so long after the last of its kind, kept or not: a
            timedelta or a string such as `"30min"` for times of day, a number in their unit
            for times that are numbers. None drops those that follow at once, with no other
            behaviour of the user in between, after however long.

    Raises:
        NullValueError: If a user, an item or a time is missing.
        DataError: If `window` does not fit the log's times.

    Example:
        >>> table = pa.table({"user": [1, 1, 1, 1], "item": ["A", "A", "B", "A"]})
        >>> DropRepeats()(BehaviorLog.from_arrow(table, time=None))
        array([ True, False,  True,  True])
    """

    window: Duration | None = None

    @property
    def name(self) -> str:
        return "drop repeats" + ("" if self.window is None else f" within {self.window}")

    def __call__(self, log: BehaviorLog) -> np.ndarray:
        log.require_complete()
        order = log.order()
        users = log.user_codes()[0][order]
        what, count = log.item_codes()[0][order], log.num_items
        if log.has("behavior"):
            behaviors, names = dictionary_encode(log.column("behavior"))
            what = what * (len(names) + 1) + behaviors[order] + 1
            count *= len(names) + 1
        kept = np.ones(len(log), bool)
        if self.window is None:
            repeated = (users[1:] == users[:-1]) & (what[1:] == what[:-1])
        else:
            window = duration_of(log, self.window, "window")
            # Stable, so that rows of one user and item stay in the order of their times.
            together = np.argsort(users * count + what, kind="stable")
            order, users, what = order[together], users[together], what[together]
            times = log.times()[order]
            repeated = (users[1:] == users[:-1]) & (what[1:] == what[:-1])
            repeated &= times[1:] - times[:-1] <= window
        kept[order[1:][repeated]] = False
        return kept


@dataclass(frozen=True)
class DropRobots:
    """Drops all rows of users who do more than a person can.

    Args:
        max_behaviors: A user who does more than this within `per` is a robot.
        per: Any stretch of time so long, wherever it begins; given as the window of
            `DropRepeats` is. None looks at the whole log.

    Raises:
        NullValueError: If a user or, with `per`, a time is missing.
        DataError: If `per` does not fit the log's times.

    Example:
        >>> table = pa.table({"user": [1, 1, 1, 2], "item": ["A", "B", "C", "A"]})
        >>> DropRobots(2)(BehaviorLog.from_arrow(table, time=None))
        array([False, False, False,  True])
    """

    max_behaviors: int
    per: Duration | None = None

    @property
    def name(self) -> str:
        per = "" if self.per is None else f" per {self.per}"
        return f"drop robots over {self.max_behaviors:,}{per}"

    def __call__(self, log: BehaviorLog) -> np.ndarray:
        if self.max_behaviors < 1:
            raise ValueError(f"max_behaviors is {self.max_behaviors}; it is at least 1.")
        codes, users = log.user_codes()
        robot = np.zeros(len(users), bool)
        if self.per is None:
            robot = np.bincount(codes, minlength=len(users)) > self.max_behaviors
        else:
            per = duration_of(log, self.per, "per")
            order, many = log.order(), self.max_behaviors
            times, users_in_order = log.times()[order], codes[order]
            # Row i and the one max_behaviors later are one too many if both fit into `per`.
            first, last = slice(None, -many), slice(many, None)
            fast = users_in_order[first] == users_in_order[last]
            fast &= times[last] - times[first] < per
            robot[users_in_order[first][fast]] = True
        return ~robot[codes]


@dataclass(frozen=True)
class KCore:
    """Keeps users and items with enough behaviours, again and again until all have enough.

    Args:
        user: Rows that a user needs.
        item: Rows that an item needs.

    Raises:
        NullValueError: If a user or an item is missing.

    Example:
        >>> table = pa.table({"user": [1, 1, 2, 2, 3], "item": ["A", "B", "A", "B", "A"]})
        >>> KCore(user=2, item=2)(BehaviorLog.from_arrow(table, time=None))
        array([ True,  True,  True,  True, False])
    """

    user: int = 5
    item: int = 5

    @property
    def name(self) -> str:
        return f"k-core user {self.user}, item {self.item}"

    def __call__(self, log: BehaviorLog) -> np.ndarray:
        (users, user_ids), (items, item_ids) = log.user_codes(), log.item_codes()
        rows = np.arange(len(log))
        while True:
            enough = np.bincount(users, minlength=len(user_ids))[users] >= self.user
            enough &= np.bincount(items, minlength=len(item_ids))[items] >= self.item
            if enough.all():
                break
            rows, users, items = rows[enough], users[enough], items[enough]
        kept = np.zeros(len(log), bool)
        kept[rows] = True
        return kept


@dataclass(frozen=True)
class TimeRange:
    """Keeps behaviours from `start` on and before `end`; rows without a time go.

    Args:
        start: The first time that stays: a datetime, a date or ISO 8601 text (UTC where it has
            no time zone) for timestamps, a number for times that are numbers. None: no limit.
        end: The first time that no longer stays, likewise.

    Raises:
        DataError: If a limit does not fit the log's times.

    Example:
        >>> table = pa.table({"user": [1, 1, 1], "item": ["A", "B", "C"], "time": [1, 2, 3]})
        >>> TimeRange(start=2, end=3)(BehaviorLog.from_arrow(table))
        array([False,  True, False])
    """

    start: Moment | None = None
    end: Moment | None = None

    @property
    def name(self) -> str:
        start = "" if self.start is None else f" from {self.start}"
        return f"time range{start}" + ("" if self.end is None else f" before {self.end}")

    def __call__(self, log: BehaviorLog) -> np.ndarray:
        times = log.column("time")
        kept = times.is_valid()
        if self.start is not None:
            limit = _moment(times.type, self.start, "start")
            kept = pc.and_(kept, pc.fill_null(pc.greater_equal(times, limit), False))
        if self.end is not None:
            limit = _moment(times.type, self.end, "end")
            kept = pc.and_(kept, pc.fill_null(pc.less(times, limit), False))
        return kept.to_numpy()


def _moment(kind: pa.DataType, value: Moment, argument: str) -> pa.Scalar:
    """Returns a time as a scalar of the log's type of time."""
    number = isinstance(value, int | float | np.number)
    if pa.types.is_timestamp(kind) == number:
        wanted = "a date or datetime" if pa.types.is_timestamp(kind) else "a number"
        raise DataError(f"{argument} is {value!r}, but the log's times are {kind}. Give {wanted}.")
    if number:
        return pa.scalar(value)
    import pandas as pd

    try:
        moment = pd.Timestamp(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{argument} is {value!r}, which is no time.") from error
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return pa.scalar(moment if kind.tz else moment.tz_localize(None), kind)


def _as_numbers(log: BehaviorLog, name: str) -> np.ndarray:
    """Returns a number for every row, equal where the values are; nulls have one of their own."""
    if name == "user" or name == "item":
        return log.encoded(name)[0].view(np.uint64)
    column: Any = log.column(name)
    if pa.types.is_floating(column.type):
        return (pc.fill_null(column, 0).cast(pa.float64()).to_numpy() + 0.0).view(
            np.uint64
        )  # -0 is 0
    if pa.types.is_integer(column.type) or pa.types.is_timestamp(column.type):
        return pc.fill_null(column.cast(pa.int64()), -1).to_numpy().view(np.uint64)
    return dictionary_encode(_comparable(column))[0].view(np.uint64)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Spreads uint64 numbers over their range (the finaliser of SplitMix64)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column that Arrow can group by; lists and structs become text."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        return pa.chunked_array([[repr(value) for value in column.to_pylist()]], pa.string())
    return column
