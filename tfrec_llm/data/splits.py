"""Parts of a log to train on, to choose by, and to test with."""

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.columns import time_column
from tfrec_llm.data.past_rows import require_same_clock
from tfrec_llm.errors import DataError, EmptyLogError


@dataclasses.dataclass(frozen=True)
class Split:
    """Three logs that share no row.

    Attributes:
        train: What a model may learn from.
        valid: What to choose models and settings by. `valid.history` holds what is known of the
            users before.
        test: What to report, once. `test.history` holds what is known of the users before,
            validation rows included.
    """

    train: BehaviorLog
    valid: BehaviorLog
    test: BehaviorLog


def leave_last_out(log: BehaviorLog, *, min_length: int = 3) -> Split:
    """Holds out every user's last behaviour for test and the one before for validation.

    Ties in time keep the log's row order, so the split repeats.

    Args:
        log: The behaviours, in any order.
        min_length: Users with fewer behaviours stay in train whole. At 2, users with two
            behaviours have an empty history for validation.

    Returns:
        The split. Rows keep the log's order in each part.

    Raises:
        EmptyLogError: If no user has `min_length` behaviours.
        NullValueError: If a row lacks its user, item or time.

    Example:
        >>> import pandas as pd
        >>> clicks = pd.DataFrame({"user": [1, 1, 2, 1], "item": list("ABAC"), "time": range(4)})
        >>> split = leave_last_out(BehaviorLog.from_pandas(clicks))
        >>> split.test.item.to_pylist(), split.train.item.to_pylist()
        (['C'], ['A', 'A'])
    """
    if min_length < 2:
        raise ValueError(f"min_length must be at least 2, got {min_length}.")
    _require_rows(log)
    codes, users = log.user_codes()
    lengths = np.bincount(codes, minlength=len(users))
    held_out = lengths >= min_length
    if not held_out.any():
        raise EmptyLogError(
            f"No user has {min_length} or more behaviours (the most any user has is "
            f"{lengths.max()}). Lower min_length or split by time."
        )
    # In log.order() users stand one after another, so a user's last rows end at its cumsum.
    order = log.order()
    ends = np.cumsum(lengths)[held_out]
    part = np.zeros(len(log), np.int8)
    part[order[ends - 2]] = 1
    part[order[ends - 1]] = 2
    return _split_in_time(log, part)


def temporal_split(
    log: BehaviorLog,
    *,
    valid_from: Any = None,
    test_from: Any = None,
    valid: float = 0.1,
    test: float = 0.1,
) -> Split:
    """Cuts the log at two moments: train before the first, test from the second on.

    Behaviours of the same time fall on the same side of a cut.

    Args:
        log: The behaviours, in any order.
        valid_from: The first moment of validation: a date, time or ISO string where the log has
            timestamps, else a number.
        test_from: The first moment of test. Both or none are given.
        valid: Without moments: the share of rows to validate with, as nearly as ties permit.
        test: Without moments: the share of rows to test with.

    Returns:
        The split. A user may have several rows in valid and test; the histories end at the cut.

    Raises:
        EmptyLogError: If a part would be empty.
        NullValueError: If a row lacks its user, item or time.

    Example:
        >>> import pandas as pd
        >>> clicks = pd.DataFrame({"user": 1, "item": list("ABCD"), "time": [3, 1, 2, 3]})
        >>> split = temporal_split(BehaviorLog.from_pandas(clicks), valid_from=2, test_from=3)
        >>> split.test.item.to_pylist(), split.train.item.to_pylist()
        (['A', 'D'], ['B'])
    """
    _require_rows(log)
    times = log.times()
    if (valid_from is None) != (test_from is None):
        raise ValueError("Give both valid_from and test_from, or neither.")
    if valid_from is None:
        _check_shares(valid, test)
        ascending = np.sort(times)
        tested = max(1, round(len(log) * test))
        validated = max(1, round(len(log) * valid))
        first = ascending[max(0, len(log) - tested - validated)]
        second = ascending[len(log) - tested]
    else:
        first = _moment(log, "valid_from", valid_from)
        second = _moment(log, "test_from", test_from)
        if first > second:
            raise ValueError(f"valid_from {valid_from} is later than test_from {test_from}.")
    part = (times >= first).astype(np.int8) + (times >= second)
    _require_parts(part)
    return _split_in_time(log, part)


def random_split(
    log: BehaviorLog, *, valid: float = 0.1, test: float = 0.1, seed: int = 0, min_length: int = 2
) -> Split:
    """Holds out whole users, to see how a model serves users it never met.

    A held-out user's last behaviour is the target, and the rest is history; none of it is in
    train.

    Args:
        log: The behaviours, in any order.
        valid: The share of users to validate with.
        test: The share of users to test with.
        seed: Chooses the users; the same seed gives the same split.
        min_length: Users with fewer behaviours are not held out.

    Returns:
        The split; valid and test hold one row a user.

    Raises:
        EmptyLogError: If there are too few users to give each part one.
        NullValueError: If a row lacks its user, item or time.

    Example:
        >>> import pandas as pd
        >>> clicks = pd.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": list("ABCABC")})
        >>> split = random_split(BehaviorLog.from_pandas(clicks, time=None), valid=.3, test=.3)
        >>> [len(part) for part in (split.train, split.valid, split.test)]
        [2, 1, 1]
    """
    _check_shares(valid, test)
    _require_rows(log)
    codes, users = log.user_codes()
    lengths = np.bincount(codes, minlength=len(users))
    eligible = np.flatnonzero(lengths >= min_length)
    number = [max(1, round(share * len(users))) for share in (valid, test)]
    if sum(number) > len(eligible) or sum(number) >= len(users):
        raise EmptyLogError(
            f"{len(users)} users, {len(eligible)} of them with {min_length} or more behaviours, "
            f"are too few to train on some, validate with {number[0]} and test with {number[1]}."
        )
    chosen = np.random.default_rng(seed).permutation(eligible)
    group = np.zeros(len(users), np.int8)
    group[chosen[: number[0]]] = 1
    group[chosen[number[0] : sum(number)]] = 2
    is_last = np.zeros(len(log), bool)
    is_last[log.order()[np.cumsum(lengths) - 1]] = True
    of_row = group[codes]
    parts = [
        log.take((of_row == one) & is_last, history=log.take((of_row == one) & ~is_last))
        for one in (1, 2)
    ]
    return Split(log.take(of_row == 0), *parts)


def impression_split(
    log: BehaviorLog,
    *,
    valid_from: Any = None,
    test_from: Any = None,
    valid: float = 0.1,
    test: float = 0.1,
) -> Split:
    """Cuts an impression log at two moments, and with it what its history may tell.

    Impressions of the same time fall on the same side of a cut, so that a campaign, or a page
    that was shown, is in one part whole. To choose settings on `valid` and then fit anew on all
    before the test, take `split.valid.concat(split.train)`, whose history is that of `valid`.

    Args:
        log: The impressions, in any order; `log.history` is what the users did.
        valid_from: The first moment of validation: a date, time or ISO string where the log has
            timestamps, else a number. None cuts the share `valid` out of what is before the
            test.
        test_from: The first moment of test. None cuts the share `test` out of the log.
        valid: The share of the impressions before the test to validate with, at least.
        test: The share of the impressions to test with, at least.

    Returns:
        The split. The histories of train and valid end before the first moment of the part that
        follows, and are of all users; that of test is whole. Inside a part, an impression may
        still be told only what lies before its own time.

    Raises:
        EmptyLogError: If a part would be empty.
        NullValueError: If a row lacks its user, item or time.
        DataError: If the times of the history are of another type than those of the log.

    Example:
        >>> import pandas as pd
        >>> shown = pd.DataFrame({"user": 1, "item": list("ABCD"), "time": range(4), "label": 1})
        >>> log = BehaviorLog.from_pandas(shown, label="label")
        >>> split = impression_split(BehaviorLog(log.table, history=log), test_from=3, valid=.3)
        >>> [part.item.to_pylist() for part in (split.train, split.valid, split.test)]
        [['A', 'B'], ['C'], ['D']]
        >>> split.train.history.item.to_pylist()
        ['A', 'B']
    """
    _require_rows(log)
    _check_shares(valid, test)
    times = log.times()
    second = _cut(log, times, "test_from", test_from, test)
    first = _cut(log, times[times < second], "valid_from", valid_from, valid)
    if first > second:
        raise ValueError(f"valid_from {valid_from} is later than test_from {test_from}.")
    part = (times >= first).astype(np.int8) + (times >= second)
    _require_parts(part)
    require_same_clock(log)
    early = late = None
    if log.history is not None:
        known = log.history.times()
        early, late = log.history.take(known < first), log.history.take(known < second)
    return Split(
        log.take(part == 0, history=early),
        log.take(part == 1, history=late),
        log.take(part == 2),
    )


def _cut(log: BehaviorLog, times: np.ndarray, name: str, moment: Any, share: float) -> int:
    """Returns the moment given, or that from which on at least a share of `times` is."""
    if moment is not None:
        return _moment(log, name, moment)
    if not len(times):
        raise EmptyLogError(f"No impression is before the test, so no {name} can be chosen.")
    return int(np.sort(times)[len(times) - max(1, round(len(times) * share))])


def _require_parts(part: np.ndarray) -> None:
    rows = np.bincount(part, minlength=3)
    if not rows.all():
        name = ("train", "validation", "test")[int(np.argmin(rows))]
        raise EmptyLogError(
            f"Nothing is left for {name}: of {len(part)} rows, {rows[0]} fall to train, {rows[1]} "
            f"to validation, {rows[2]} to test. Move the cuts."
        )


def _split_in_time(log: BehaviorLog, part: np.ndarray) -> Split:
    """Builds a split whose part 1 follows part 0, and part 2 follows both, for every user."""
    # The history is taken by mask, not put together of parts: rows that tie keep their order.
    train = log.take(part == 0)
    valid = log.take(part == 1, history=train)
    return Split(train, valid, log.take(part == 2, history=log.take(part < 2)))


def _moment(log: BehaviorLog, name: str, value: Any) -> int:
    """Returns a moment in the unit of `log.times()`."""
    values = np.array([value]) if isinstance(value, np.generic) else [value]
    given = time_column(pa.chunked_array([pa.array(values)]), name)
    own = log.table["time"].type
    if pa.types.is_timestamp(own) != pa.types.is_timestamp(given.type):
        raise DataError(f"{name} is {value!r}, but the log's times are of type {own}.")
    if pa.types.is_floating(own):
        return round(float(value) * 1e6)
    if pa.types.is_floating(given.type):
        return math.ceil(value)
    return given.cast(pa.int64())[0].as_py()


def _require_rows(log: BehaviorLog) -> None:
    if not len(log):
        raise EmptyLogError("The log has no rows to split.")
    log.require_complete()


def _check_shares(valid: float, test: float) -> None:
    if valid <= 0 or test <= 0 or valid + test >= 1:
        raise ValueError(
            f"valid and test must be above 0 and leave some for train, got {valid} and {test}."
        )
