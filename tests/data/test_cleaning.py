import datetime
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfrec_llm.data import (
    BehaviorLog,
    DropDuplicates,
    DropNulls,
    DropRepeats,
    DropRobots,
    KCore,
    TimeRange,
    clean,
)
from tfrec_llm.errors import DataError, EmptyLogError, MissingColumnError, NullValueError


def make(user, item, time=None, **options):
    columns = {"user": user, "item": list(item)} | ({} if time is None else {"time": time})
    columns |= {name: options[name] for name in ("behavior", "device") if name in options}
    return BehaviorLog.from_arrow(
        pa.table(columns),
        time=None if time is None else "time",
        behavior="behavior" if "behavior" in options else None,
        context=["device"] if "device" in options else (),
    )


def random_log(rows=3_000, users=40, items=30, times=500, seed=0):
    generator = np.random.default_rng(seed)
    return BehaviorLog.from_arrow(
        pa.table(
            {
                "user": generator.integers(0, users, rows),
                "item": pa.array(generator.integers(0, items, rows)).cast(pa.string()),
                "time": generator.integers(0, times, rows),
                "behavior": pa.array(["view", "cart", None]).take(
                    pa.array(generator.integers(0, 3, rows))
                ),
            }
        ),
        behavior="behavior",
    )


def on_clock(log):
    """The same log with its times as timestamps, a second for each unit."""
    times = pa.array(log.times() * 1_000_000).cast(pa.timestamp("us"))
    return BehaviorLog(log.table.set_column(2, "time", times))


def test_the_report_counts_what_each_step_removed():
    log = make([1, 1, 1, 2, None], "ABBAA")
    result = clean(log, [DropNulls(), DropRepeats(), KCore(user=2, item=1)])
    assert result.log.item.to_pylist() == ["A", "B"]
    assert len(log) == 5
    assert str(result.report).splitlines() == [
        "step                   rows  removed  users  items",
        "as read                   5               2      2",
        "drop nulls                4        1      2      2",
        "drop repeats              3        1      2      2",
        "k-core user 2, item 1     2        1      1      2",
    ]
    table = result.report.to_pandas()
    assert table["step"].tolist() == ["drop nulls", "drop repeats", "k-core user 2, item 1"]
    assert table["rows_before"].tolist() == [5, 4, 3]
    assert table["rows_after"].tolist() == [4, 3, 2]
    assert (table["rows_before"] - table["rows_after"]).sum() == len(log) - len(result.log)
    assert table[["users_before", "users_after"]].values.tolist() == [[2, 2], [2, 2], [2, 1]]
    assert table[["items_before", "items_after"]].values.tolist() == [[2, 2]] * 3


def test_steps_of_ones_own_are_counted_too():
    log = make([1, 1, 2], "ABA")

    def only_a(log):
        return np.array(log.item.to_pylist()) == "A"

    result = clean(log, [only_a])
    assert result.log.user.to_pylist() == [1, 2]
    assert result.report.counts[1].step == "only_a"
    with pytest.raises(TypeError, match="returned int64 of shape"):
        clean(log, [lambda log: np.array([0, 2])])


def test_no_steps_leave_the_log_as_it_is():
    log = make([1, 1, 2], "ABA")
    assert clean(log, []).log.table.equals(log.table)


def test_a_step_that_leaves_nothing_is_named_with_the_report():
    log = make([1, 1, 2], "ABA")
    with pytest.raises(
        EmptyLogError, match=r"'k-core user 9, item 9' removed all(.|\n)*drop nulls"
    ):
        clean(log, [DropNulls(), KCore(user=9, item=9)])
    with pytest.raises(EmptyLogError, match="no rows to clean"):
        clean(log.take([]), [DropNulls()])


@pytest.mark.parametrize("step", [DropRepeats(), DropRobots(1), DropRobots(1, per=1), KCore()])
def test_steps_that_need_all_values_say_so(step):
    with pytest.raises(NullValueError, match="DropNulls"):
        step(make([1, None, 2], "ABA", time=[1, 2, None]))


def test_rows_that_lack_a_user_an_item_or_a_time_go():
    log = BehaviorLog.from_pandas(
        pd.DataFrame(
            {
                "user": [1, np.nan, 2, 3],
                "item": ["A", "B", None, "C"],
                "time": pd.to_datetime(["2024-01-01", "2024-01-01", "2024-01-01", None]),
                "kind": [None, "view", "view", "view"],
            }
        ),
        behavior="kind",
    )
    assert DropNulls()(log).tolist() == [True, False, False, False]
    assert DropNulls(columns=["behavior"])(log).tolist() == [False, True, True, True]
    with pytest.raises(MissingColumnError, match="no column 'weight'"):
        DropNulls(columns=["weight"])(log)


def test_only_rows_that_equal_an_earlier_one_in_all_columns_are_duplicates():
    log = make(
        [1, 1, 1, 1, 1, None, None],
        "AAAAAAA",
        time=[5, 5, 5, 6, 5, 5, 5],
        device=["x", "x", "y", "x", "x", None, None],
    )
    assert DropDuplicates()(log).tolist() == [True, False, True, True, False, True, False]
    first_of_pair = DropDuplicates(columns=["user", "item"])
    assert first_of_pair(log).tolist() == [True, False, False, False, False, True, False]
    assert DropDuplicates(columns=["device"])(log).tolist() == [1, 0, 1, 0, 0, 1, 0]
    with pytest.raises(MissingColumnError, match="no column 'page'"):
        DropDuplicates(columns=["page"])(log)


def test_duplicates_are_those_that_a_set_finds():
    log = random_log()
    seen, expected = set(), []
    for row in zip(*(column.to_pylist() for column in log.table.columns), strict=True):
        expected.append(row not in seen)
        seen.add(row)
    assert 0 < expected.count(False) < len(log)
    assert DropDuplicates()(log).tolist() == expected


def test_context_of_any_type_is_compared():
    lists = pa.array([["a"], ["a"], ["b"], None])
    zeros = pa.array([0.0, -0.0, 0.0, 0.0])
    table = pa.table({"user": [1] * 4, "item": ["A"] * 4, "time": zeros, "tags": lists})
    log = BehaviorLog.from_arrow(table, context="tags")
    assert DropDuplicates()(log).tolist() == [True, False, True, True]
    floats = BehaviorLog(log.table.set_column(2, "time", pa.array([0.5, 0.5, 0.5, -0.5])))
    assert DropDuplicates()(floats).tolist() == [True, False, True, True]


def test_a_repeat_follows_at_once_if_no_window_is_given():
    # In the order of time user 1 does A, A, B, A.
    log = make([1, 1, 2, 1, 1], "AAABA", time=[10, 40, 5, 30, 20])
    assert DropRepeats()(log).tolist() == [True, True, True, True, False]


def test_another_behaviour_towards_the_same_item_is_no_repeat():
    log = make([1, 1, 1, 1], "AAAA", time=[1, 2, 3, 4], behavior=["view", "cart", "cart", None])
    assert DropRepeats()(log).tolist() == [True, True, False, True]
    assert DropRepeats(window=9)(log).tolist() == [True, True, False, True]


def test_repeats_within_a_window_are_those_that_a_loop_finds():
    log = random_log()
    last, kept = {}, np.ones(len(log), bool)
    codes = log.user_codes()[0]
    rows = list(zip(codes, log.item.to_pylist(), log.table["behavior"].to_pylist(), strict=True))
    for row in log.order():
        now, what = log.times()[row], rows[row]
        kept[row] = what not in last or now - last[what] > 20
        last[what] = now
    assert 0 < np.count_nonzero(~kept) < len(log)
    np.testing.assert_array_equal(DropRepeats(window=20)(log), kept)
    for window in ("20s", datetime.timedelta(seconds=20), np.timedelta64(20, "s")):
        np.testing.assert_array_equal(DropRepeats(window=window)(on_clock(log)), kept)


def test_robots_are_those_with_too_many_behaviours_in_any_stretch():
    log = random_log(times=3_000)
    codes, times = log.user_codes()[0], log.times()
    expected = np.ones(len(log), bool)
    for user in range(log.num_users):
        own = np.sort(times[codes == user])
        most = max(np.count_nonzero((own >= start) & (own < start + 60)) for start in own)
        expected[codes == user] = most <= 6
    assert 0 < np.count_nonzero(~expected) < len(log)
    np.testing.assert_array_equal(DropRobots(6, per=60)(log), expected)
    np.testing.assert_array_equal(DropRobots(6, per="1min")(on_clock(log)), expected)


def test_robots_over_the_whole_log_need_no_times():
    log = make([1, 1, 1, 2, 2], "ABCAB")
    assert DropRobots(2)(log).tolist() == [False, False, False, True, True]
    assert DropRobots(3)(log).all()
    with pytest.raises(ValueError, match="at least 1"):
        DropRobots(0)(log)


def test_a_core_is_what_is_left_when_all_have_enough():
    log = random_log(rows=450, users=60, items=60)
    rows = set(range(len(log)))
    users, items = log.user.to_pylist(), log.item.to_pylist()
    while True:
        per_user = Counter(users[row] for row in rows)
        per_item = Counter(items[row] for row in rows)
        kept = {r for r in rows if per_user[users[r]] >= 5 and per_item[items[r]] >= 4}
        if kept == rows:
            break
        rows = kept
    assert 0 < len(rows) < len(log)
    assert set(np.flatnonzero(KCore(user=5, item=4)(log))) == rows


def test_a_time_range_holds_its_start_and_not_its_end():
    log = make([1] * 4, "ABCD", time=[1, 2, 3, None])
    assert TimeRange(start=2, end=3)(log).tolist() == [False, True, False, False]
    assert TimeRange(end=3)(log).tolist() == [True, True, False, False]
    assert TimeRange()(log).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "start",
    [
        "2024-01-02",
        datetime.date(2024, 1, 2),
        datetime.datetime(2024, 1, 2),
        np.datetime64("2024-01-02"),
        pd.Timestamp("2024-01-02 08:00", tz="Asia/Shanghai"),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_limits_may_be_given_in_all_the_ways_of_writing_a_day(start, zone):
    times = pd.to_datetime(["2024-01-01 23:59:59", "2024-01-02", "2024-01-03"], format="ISO8601")
    log = make([1] * 3, "ABC", time=pa.array(times.tz_localize(zone)))
    assert TimeRange(start=start)(log).tolist() == [False, True, True]


def test_durations_and_limits_of_the_wrong_kind_are_refused():
    numbers = make([1, 1, 2], "ABA", time=[1, 2, 3])
    clock = on_clock(numbers)
    with pytest.raises(DataError, match=r"window is '1h'.*no known unit"):
        DropRepeats(window="1h")(numbers)
    with pytest.raises(DataError, match=r"per is 60.*timedelta"):
        DropRobots(5, per=60)(clock)
    with pytest.raises(DataError, match="no duration"):
        DropRepeats(window="soon")(clock)
    with pytest.raises(DataError, match=r"start is '2024-01-01'.*Give a number"):
        TimeRange(start="2024-01-01")(numbers)
    with pytest.raises(DataError, match=r"end is 7.*Give a date"):
        TimeRange(end=7)(clock)
    with pytest.raises(DataError, match="no time"):
        TimeRange(end="soon")(clock)


def test_fractional_times_are_measured_in_their_own_unit():
    log = make([1, 1, 1], "AAA", time=[0.5, 1.0, 3.5])
    assert DropRepeats(window=0.5)(log).tolist() == [True, False, True]
    assert TimeRange(start=0.75, end=3.5)(log).tolist() == [False, True, False]


def test_a_single_user_and_a_single_item_are_cleaned_too():
    log = make([1] * 6, "A" * 6, time=[1, 1, 2, 3, 4, 5])
    steps = [DropNulls(), DropDuplicates(), KCore(), DropRobots(5), TimeRange(start=1)]
    assert len(clean(log, steps).log) == 5
