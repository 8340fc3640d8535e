import datetime
import errno
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrec_llm.data import BehaviorLog, Catalogue, UserTable
from tfrec_llm.errors import DataError, MissingColumnError, MixedTypeError, NullValueError


def frame(**columns):
    return pd.DataFrame({"user": [1, 1, 2], "item": ["a", "b", "a"], "time": [3, 1, 2]} | columns)


@pytest.fixture
def log():
    return BehaviorLog.from_pandas(frame())


def random_log(rows=5_000, users=70_000, seed=0):
    generator = np.random.default_rng(seed)
    table = pa.table(
        {
            "user": pa.array(generator.integers(0, users, rows)).cast(pa.string()),
            "item": generator.integers(0, 50, rows),
            "time": generator.integers(0, 30, rows),
        }
    )
    return BehaviorLog.from_arrow(table)


def test_columns_of_other_names_come_in_the_canonical_order():
    df = pd.DataFrame(
        {"device": ["x", "y"], "score": [1, 0], "kind": ["view", "cart"], "at": [5, 6]}
        | {"sku": [7, 8], "who": ["u", "v"], "w": [0.5, 2], "unused": [0, 0]}
    )
    log = BehaviorLog.from_pandas(
        df,
        user="who",
        item="sku",
        time="at",
        behavior="kind",
        weight="w",
        label="score",
        context=["device"],
    )
    names = ["user", "item", "time", "behavior", "weight", "label", "device"]
    assert log.table.column_names == names
    kinds = [pa.string(), pa.int64(), pa.int64(), pa.string(), pa.float32(), pa.float32()]
    assert log.table.schema.types == [*kinds, pa.string()]
    assert log.context == ["device"]
    assert log.has("behavior")
    assert not log.has("unused")


def test_a_missing_column_is_answered_with_the_columns_there_are(log):
    with pytest.raises(MissingColumnError, match=r"no column 'sku'.*'user', 'item', 'time'"):
        BehaviorLog.from_pandas(frame(), item="sku")
    with pytest.raises(MissingColumnError, match=r"no column 'label'.*'user', 'item', 'time'"):
        log.column("label")
    with pytest.raises(DataError, match="several columns called 'user'"):
        BehaviorLog.from_pandas(
            pd.DataFrame([[1, 2, 3, 4]], columns=["user", "user", "item", "time"])
        )


def test_an_empty_table_is_an_empty_log():
    log = BehaviorLog.from_pandas(frame()[:0])
    assert (len(log), log.num_users, log.num_items) == (0, 0, 0)
    assert log.order().size == log.times().size == 0
    assert "0 rows" in repr(log)


def test_missing_values_stay_in_the_log_until_it_is_cleaned():
    df = frame(user=[1, np.nan, 2], item=["a", None, "a"], time=[1.0, np.nan, 2.0])
    log = BehaviorLog.from_pandas(df)
    assert log.user.to_pylist() == [1, None, 2]
    assert log.item.to_pylist() == ["a", None, "a"]
    assert log.table["time"].to_pylist() == [1, None, 2]
    assert (log.num_users, log.num_items) == (2, 1)
    with pytest.raises(NullValueError, match=r"1 of 3 rows have no user.*DropNulls"):
        log.require_complete()
    for needs_all in (log.user_codes, log.item_codes, log.times, log.order):
        with pytest.raises(NullValueError, match="DropNulls"):
            needs_all()


def test_nat_is_a_missing_time():
    log = BehaviorLog.from_pandas(frame(time=pd.to_datetime(["2024-01-02", None, "2024-01-01"])))
    assert log.table["time"].null_count == 1
    with pytest.raises(NullValueError, match="no time"):
        log.times()


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (np.array([1, 2, 3], np.uint8), [1, 2, 3]),
        ([1.0, np.nan, 3.0], [1, None, 3]),
        (pd.array([1, None, 3], "Int32"), [1, None, 3]),
        (pd.Categorical(["x", None, "y"]), ["x", None, "y"]),
        (["x", np.nan, "y"], ["x", None, "y"]),
        ([None, None, None], [None, None, None]),
        ([b"x", b"y", b"z"], ["x", "y", "z"]),
    ],
)
def test_ids_of_every_common_kind_become_integers_or_strings(ids, kept):
    log = BehaviorLog.from_pandas(frame(item=ids))
    assert log.item.to_pylist() == kept
    assert log.item.type in (pa.int64(), pa.string())


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (
            [7, "A9", None],
            MixedTypeError,
            r"1 int \(first 7\), 1 str \(first 'A9'\).*ids=\"string\"",
        ),
        ([1, 2.5, 3], DataError, r"not whole: 1 of 3, first 2.5 in row 1"),
        ([1, np.inf, 3], DataError, "first inf in row 1"),
        ([1, 1e18, 3], DataError, "too large to be exact"),
        (np.array([1, 2, 2**63 + 5], np.uint64), DataError, 'ids="string"'),
        ([True, False, True], DataError, "holds bool"),
        (pd.to_datetime(["2024-01-01"] * 3), DataError, "ids are strings or integers"),
        ([uuid.uuid4() for _ in range(3)], DataError, 'ids="string"'),
    ],
)
def test_ids_that_are_none_are_refused_and_the_cure_named(ids, error, message):
    with pytest.raises(error, match=message):
        BehaviorLog.from_pandas(frame(item=ids))
    assert BehaviorLog.from_pandas(frame(item=ids), ids="string").item.type == pa.string()


def test_ids_as_strings_are_written_as_integers_where_they_are_whole():
    mixed = BehaviorLog.from_pandas(frame(item=[7, "A9", 3.0]), ids="string")
    assert mixed.item.to_pylist() == ["7", "A9", "3"]
    beside_nan = BehaviorLog.from_pandas(frame(item=[7, np.nan, 3]), ids="string")
    assert beside_nan.item.to_pylist() == ["7", None, "3"]
    with pytest.raises(ValueError, match='takes "string"'):
        BehaviorLog.from_pandas(frame(), ids="str")


@pytest.mark.parametrize(
    ("times", "microseconds"),
    [
        ([30, 10, 20], [30, 10, 20]),
        ([30.0, 10.0, 20.0], [30, 10, 20]),
        ([1.5, 0.25, 2], [1_500_000, 250_000, 2_000_000]),
        (["30", "10", "20"], [30, 10, 20]),
        (pd.to_datetime([3, 1, 2], unit="s"), [3_000_000, 1_000_000, 2_000_000]),
        ([datetime.date(1970, 1, day) for day in (3, 1, 2)], [172_800_000_000, 0, 86_400_000_000]),
        (["1970-01-01", "1970-01-01 00:01", "1970-01-01T00:00:00.5"], [0, 60_000_000, 500_000]),
        (["1970-01-01T00:00:00.000001999"] * 3, [1, 1, 1]),
        (
            ["1970-01-01T00:00:01Z", "1970-01-01T01:00:00+01:00", "1970-01-01T00:00Z"],
            [1_000_000, 0, 0],
        ),
        (pd.to_datetime(["1970-01-01 08:00"] * 3).tz_localize("Asia/Shanghai"), [0, 0, 0]),
    ],
)
def test_times_of_every_common_kind_become_int64(times, microseconds):
    found = BehaviorLog.from_pandas(frame(time=times)).times()
    assert found.dtype == np.int64
    assert found.tolist() == microseconds


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        (["2024-01-01", "yesterday", "01/02/2024"], DataError, "2 of 3.*'yesterday' in row 1"),
        (["2024-01-01", "2024-01-01T10:00Z", "2024-01-01"], MixedTypeError, "1 with a time zone"),
        ([1.0, np.inf, 2.0], DataError, "up to inf"),
        ([True, False, True], DataError, "holds bool"),
        (pd.to_timedelta([1, 2, 3], unit="s"), DataError, "holds duration"),
    ],
)
def test_times_that_are_none_are_refused(times, error, message):
    with pytest.raises(error, match=message):
        BehaviorLog.from_pandas(frame(time=times))


def test_without_a_time_the_rows_are_in_time_order():
    log = BehaviorLog.from_pandas(frame(), time=None)
    assert log.times().tolist() == [0, 1, 2]
    assert log.order().tolist() == [0, 1, 2]


def test_weights_and_labels_are_finite_numbers():
    log = BehaviorLog.from_pandas(
        frame(w=[1, np.nan, 2], y=[True, False, True]), weight="w", label="y"
    )
    assert log.table["weight"].to_pylist() == [1, None, 2]
    assert log.table["label"].to_pylist() == [1, 0, 1]
    with pytest.raises(DataError, match="'w' holds 1 infinite"):
        BehaviorLog.from_pandas(frame(w=[1, np.inf, 2]), weight="w")
    with pytest.raises(DataError, match="no numbers"):
        BehaviorLog.from_pandas(frame(w=["much", "1", "2"]), weight="w")


def test_a_context_column_cannot_take_a_name_of_the_log():
    with pytest.raises(DataError, match=r"\['weight'\]"):
        BehaviorLog.from_pandas(frame(weight=[1, 2, 3]), context=["weight"])


def test_rows_are_ordered_by_user_then_time_and_ties_keep_their_order():
    log = random_log()
    codes, users = log.user_codes()
    assert codes.dtype == np.int64
    assert users.take(pa.array(codes)).equals(log.user.combine_chunks())
    assert users.to_pylist() == list(dict.fromkeys(log.user.to_pylist()))
    expected = sorted(range(len(log)), key=lambda row: (codes[row], log.times()[row]))
    assert log.order().tolist() == expected
    many_ties = random_log(users=3)
    codes = many_ties.user_codes()[0]
    expected = np.lexsort((many_ties.times(), codes))
    np.testing.assert_array_equal(many_ties.order(), expected)


def test_more_users_than_fit_into_16_bits_are_ordered_just_so():
    log = random_log(rows=200_000)
    assert log.num_users > 65_536
    np.testing.assert_array_equal(log.order(), np.lexsort((log.times(), log.user_codes()[0])))


def test_a_shared_array_cannot_be_changed_by_accident(log):
    for shared in (log.order(), log.user_codes()[0]):
        with pytest.raises(ValueError, match="read-only"):
            shared[0] = 7


@pytest.mark.parametrize("mask", [True, False])
def test_taken_rows_count_their_users_as_a_new_log_would(mask):
    log = random_log()
    log.order()
    rows = np.flatnonzero(np.random.default_rng(1).random(len(log)) < 0.3)
    if not mask:
        rows = np.random.default_rng(2).permutation(rows)
    chosen = np.isin(np.arange(len(log)), rows) if mask else rows
    taken, fresh = log.take(chosen), BehaviorLog(log.table.take(rows))
    assert taken.table.equals(fresh.table)
    np.testing.assert_array_equal(taken.user_codes()[0], fresh.user_codes()[0])
    assert taken.user_codes()[1].equals(fresh.user_codes()[1])
    assert taken.num_items == fresh.num_items
    np.testing.assert_array_equal(taken.order(), fresh.order())


def test_rows_that_are_not_there_cannot_be_taken(log):
    assert len(log.take([])) == 0
    assert log.take([2, 0, 0]).item.to_pylist() == ["a", "a", "a"]
    for rows in ([3], [-1], [True, False]):
        with pytest.raises(IndexError):
            log.take(rows)


def test_taken_rows_keep_catalogue_users_and_history(log):
    catalogue = Catalogue(pa.table({"item": ["a", "b"], "price": [1.0, 2.0]}))
    users = UserTable(pa.table({"user": [1, 2], "age": [30, 40]}))
    log = BehaviorLog(log.table, catalogue=catalogue, users=users)
    last = log.take([2], history=log.take([0, 1])).take([True])
    assert last.catalogue is catalogue
    assert last.users is users
    assert len(last.history) == 2


def test_further_labels_are_no_context_and_stay_labels(log):
    table = log.table.append_column("click", pa.array([1.0, 0.0, 1.0]))
    log = BehaviorLog(table.append_column("hour", pa.array([7, 8, 9])), labels=["click"])
    for one in (log, log.take([1, 2]), log.concat(log), log.take([0]).take([0])):
        assert one.labels == ("click",)
        assert one.context == ["hour"]
    with pytest.raises(MissingColumnError, match="'order'"):
        BehaviorLog(table, labels=["order"])


def test_logs_of_the_same_form_are_joined_and_others_refused(log):
    assert log.concat(log).item.to_pylist() == ["a", "b", "a"] * 2
    assert log.take([]).concat(log).table.equals(log.table)
    assert log.concat(BehaviorLog.from_pandas(frame()[:0])).table.equals(log.table)
    with pytest.raises(MixedTypeError, match="'user' is int64 in one log and string"):
        log.concat(BehaviorLog.from_pandas(frame(), ids="string"))
    with pytest.raises(DataError, match=r"\['behavior'\]"):
        log.concat(BehaviorLog.from_pandas(frame(b=["x", "y", "z"]), behavior="b"))


def test_a_catalogue_whose_ids_would_never_match_is_refused():
    catalogue = Catalogue(pa.table({"item": [1, 2], "price": [1.0, 2.0]}))
    with pytest.raises(MixedTypeError, match=r"string \(first '1'\).*int64 \(first 1\)"):
        BehaviorLog.from_pandas(frame(item=["1", "2", "1"]), catalogue=catalogue)


def test_the_printed_log_tells_its_size_its_span_and_its_behaviours():
    df = frame(time=pd.to_datetime([3, 1, 2], unit="D"), kind=["view", "cart", "view"])
    text = repr(BehaviorLog.from_pandas(df, behavior="kind"))
    assert text.splitlines() == [
        "BehaviorLog of 3 rows",
        "  users  2",
        "  items  2",
        "  time   1970-01-02 00:00:00 to 1970-01-04 00:00:00",
        "  behaviours  view 2, cart 1",
    ]


def test_a_written_log_is_read_back_whole(tmp_path):
    log = BehaviorLog.from_pandas(
        frame(kind=["x", "y", None], d=[1, 2, 3]), behavior="kind", context="d"
    )
    log.to_parquet(tmp_path / "log.parquet")
    back = BehaviorLog.from_parquet(tmp_path / "log.parquet", behavior="behavior", context="d")
    assert back.table.equals(log.table)
    pd.testing.assert_frame_equal(back.to_pandas(), log.to_pandas())


def test_a_full_disk_leaves_the_old_file(log, tmp_path, monkeypatch):
    path = tmp_path / "log.parquet"
    log.to_parquet(path)

    def full(table, where, **options):
        where.write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        log.concat(log).to_parquet(path)
    assert BehaviorLog.from_parquet(path).table.equals(log.table)
    assert [file.name for file in tmp_path.iterdir()] == ["log.parquet"]
