import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.datasets import load
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import UNKNOWN, Vocabulary
from tfrec_llm.errors import (
    DataFileError,
    MixedTypeError,
    NullValueError,
    UnknownItemError,
    UnknownUserError,
)

VOCABULARY = Vocabulary(["A", "B", "C"])  # A is 3, B is 4, C is 5
HISTORIES = [["A", "C"], [], ["B"], ["C", "B", "A"]]


@pytest.fixture
def sequences():
    plain = UserSequences.from_histories(HISTORIES, VOCABULARY)
    return UserSequences(
        plain.items,
        plain.offsets,
        user_ids=["u", "v", "w", "x"],
        behaviors=np.array([1, 2, 1, 0, 1, 2], np.int32),
        times=np.arange(10, 16),
        behavior_vocabulary=("view", "buy"),
    )


def as_lists(sequences):
    return [sequences[row].tolist() for row in range(len(sequences))]


@pytest.fixture
def log():
    """Rows in no order; the first user did two things at time 5."""
    frame = pd.DataFrame(
        {
            "user": ["u", "v", "u", "u", "v"],
            "item": ["A", "C", "B", "Z9", "A"],
            "time": [5, 8, 2, 5, 7],
            "kind": ["buy", "view", "view", None, "view"],
        }
    )
    return BehaviorLog.from_pandas(frame, behavior="kind")


def test_a_log_becomes_histories_oldest_first_with_ties_in_row_order(log):
    sequences = UserSequences.from_log(log, VOCABULARY)
    assert sequences.user_ids.to_pylist() == ["u", "v"]
    assert as_lists(sequences) == [[4, 3, UNKNOWN], [3, 5]]
    assert sequences.items.dtype == np.int32
    assert sequences.times.tolist() == [2, 5, 5, 7, 8]


def test_kinds_of_behaviour_are_numbered_by_frequency_or_as_told(log):
    sequences = UserSequences.from_log(log, VOCABULARY)
    assert sequences.behavior_vocabulary == ("view", "buy")
    assert sequences.behaviors.tolist() == [1, 2, 0, 1, 1]
    told = UserSequences.from_log(log, VOCABULARY, behaviors=["cart", "buy"])
    assert told.behavior_vocabulary == ("cart", "buy")
    assert told.behaviors.tolist() == [0, 2, 0, 0, 0]


def test_unknown_items_of_a_log_are_marked_or_left_out_or_an_error(log):
    ignored = UserSequences.from_log(log, VOCABULARY, on_unknown="ignore")
    assert as_lists(ignored) == [[4, 3], [3, 5]]
    assert ignored.times.tolist() == [2, 5, 7, 8]
    assert ignored.behaviors.tolist() == [1, 2, 1, 1]
    with pytest.warns(UserWarning, match="1 of 5 behaviours are left out"):
        UserSequences.from_log(log, VOCABULARY, on_unknown="warn")
    with pytest.raises(UnknownItemError, match=r"1 of 5 items .*first 'Z9'"):
        UserSequences.from_log(log, VOCABULARY, on_unknown="raise")


def test_users_of_whom_nothing_is_known_stay_with_an_empty_history(log):
    few = UserSequences.from_log(log, Vocabulary(["B"]), on_unknown="ignore")
    assert as_lists(few) == [[3], []]
    assert few.user_ids.to_pylist() == ["u", "v"]


def test_a_log_with_missing_values_is_not_made_into_sequences():
    frame = pd.DataFrame({"user": ["u", "v"], "item": ["A", None], "time": [1, 2]})
    with pytest.raises(NullValueError, match="1 of 2 rows have no item"):
        UserSequences.from_log(BehaviorLog.from_pandas(frame), VOCABULARY)


def test_an_empty_log_gives_no_sequences(log):
    assert len(UserSequences.from_log(log.take([]), VOCABULARY)) == 0


def test_any_order_of_rows_gives_the_same_sequences():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": rng.integers(30, size=500), "item": rng.integers(9, size=500)})
    frame["time"] = rng.permutation(500)
    vocabulary = Vocabulary.fit(frame["item"])
    users = frame["user"].unique()
    expected = UserSequences.from_log(BehaviorLog.from_pandas(frame), vocabulary)
    for seed in range(3):
        log = BehaviorLog.from_pandas(frame.sample(frac=1, random_state=seed))
        again = UserSequences.from_log(log, vocabulary).select(users)
        assert again.to_arrow().equals(expected.to_arrow())
    by_user = frame.sort_values("time").groupby("user").item.agg(list)
    assert [vocabulary.decode(row).tolist() for row in expected] == by_user[users].tolist()


@pytest.mark.skipif("TFREC_DATA" not in os.environ, reason="ml-1m is read from TFREC_DATA")
@pytest.mark.parametrize("ties", [False, True])
def test_movielens_keeps_the_order_of_the_published_file(ties):
    log = load("ml-1m")
    items = log.item.to_numpy()
    if ties:
        columns = {"user": log.user, "item": log.item, "time": np.zeros(len(log), np.int64)}
        log = BehaviorLog.from_arrow(pa.table(columns))
    vocabulary = Vocabulary.fit(log.item)
    sequences = UserSequences.from_log(log, vocabulary)
    assert (vocabulary.decode(sequences.items) == items).all()
    assert len(sequences) == 6_040


def test_histories_become_flat_items_and_offsets():
    sequences = UserSequences.from_histories(HISTORIES, VOCABULARY)
    assert sequences.items.tolist() == [3, 5, 4, 5, 4, 3]
    assert sequences.offsets.tolist() == [0, 2, 2, 3, 6]
    assert sequences.lengths.tolist() == [2, 0, 1, 3]
    assert (sequences.items.dtype, sequences.offsets.dtype) == (np.int32, np.int64)
    assert sequences.user_ids is None
    assert len(sequences) == 4
    assert [row.tolist() for row in sequences] == [[3, 5], [], [4], [5, 4, 3]]
    assert sequences[-1].tolist() == [5, 4, 3]


@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_empty_histories_are_sequences_too(histories):
    sequences = UserSequences.from_histories(histories, VOCABULARY)
    assert len(sequences) == len(histories)
    assert sequences.items.size == 0
    assert len(sequences.newest(3)) == len(histories)


def test_histories_may_be_arrays_and_tuples():
    histories = [np.array(["A"]), ("B", "C"), pa.array(["C"]).to_pylist()]
    assert as_lists(UserSequences.from_histories(histories, VOCABULARY)) == [[3], [4, 5], [5]]


@pytest.mark.parametrize("histories", [["A13", "B4"], [["A"], 7], "AB"])
def test_a_single_history_in_place_of_a_list_is_an_error(histories):
    with pytest.raises(TypeError, match="list of histories"):
        UserSequences.from_histories(histories, VOCABULARY)


def test_unknown_items_of_a_history_are_an_error_or_left_out_or_marked():
    histories = [["A", "Z9"], ["Z9"], ["B"]]
    with pytest.raises(UnknownItemError, match=r"2 of 4 items .* first 'Z9'"):
        UserSequences.from_histories(histories, VOCABULARY)
    ignored = UserSequences.from_histories(histories, VOCABULARY, on_unknown="ignore")
    assert as_lists(ignored) == [[3], [], [4]]
    marked = UserSequences.from_histories(histories, VOCABULARY, on_unknown="unknown")
    assert as_lists(marked) == [[3, UNKNOWN], [UNKNOWN], [4]]
    with pytest.warns(UserWarning, match="2 of 4 behaviours are left out"):
        UserSequences.from_histories(histories, VOCABULARY, on_unknown="warn")


def test_taken_rows_keep_all_that_is_known_of_them(sequences):
    taken = sequences.take([3, 0])
    assert as_lists(taken) == [[5, 4, 3], [3, 5]]
    assert taken.user_ids.to_pylist() == ["x", "u"]
    assert taken.behaviors.tolist() == [0, 1, 2, 1, 2]
    assert taken.times.tolist() == [13, 14, 15, 10, 11]
    assert taken.behavior_vocabulary == ("view", "buy")


def test_rows_are_taken_by_mask_and_from_the_end(sequences):
    assert as_lists(sequences.take(sequences.lengths > 1)) == [[3, 5], [5, 4, 3]]
    assert as_lists(sequences.take([-1])) == [[5, 4, 3]]
    assert as_lists(sequences.take([])) == []
    with pytest.raises(IndexError):
        sequences.take([4])
    with pytest.raises(IndexError):
        sequences.take([True])


def test_the_newest_behaviours_are_the_last_ones(sequences):
    newest = sequences.newest(2)
    assert as_lists(newest) == [[3, 5], [], [4], [4, 3]]
    assert newest.times.tolist() == [10, 11, 12, 14, 15]
    assert newest.user_ids.to_pylist() == ["u", "v", "w", "x"]
    assert as_lists(sequences.newest(0)) == [[], [], [], []]


def test_selected_users_come_in_the_order_asked_for(sequences):
    selected = sequences.select(["x", "v", "u"])
    assert as_lists(selected) == [[5, 4, 3], [], [3, 5]]
    assert selected.user_ids.to_pylist() == ["x", "v", "u"]


def test_unknown_users_are_an_error_or_empty(sequences):
    with pytest.raises(UnknownUserError, match="1 of 2 users have no known history, first 'q'"):
        sequences.select(["u", "q"])
    selected = sequences.select(["q", "u"], on_unknown="empty")
    assert as_lists(selected) == [[], [3, 5]]
    assert selected.user_ids.to_pylist() == ["q", "u"]
    with pytest.raises(MixedTypeError):
        sequences.select([7])
    with pytest.raises(UnknownUserError, match="do not know the names"):
        UserSequences.from_histories(HISTORIES, VOCABULARY).select(["u"])


def test_the_same_user_may_be_selected_twice(sequences):
    assert as_lists(sequences.select(["u", "w", "u"])) == [[3, 5], [4], [3, 5]]


def test_arrays_that_do_not_fit_together_are_an_error():
    items = np.array([3, 4], np.int32)
    with pytest.raises(ValueError, match="offsets must rise from 0"):
        UserSequences(items, np.array([0, 1]))
    with pytest.raises(ValueError, match="offsets must rise from 0"):
        UserSequences(items, np.array([0, 3, 2]))
    with pytest.raises(ValueError, match="1 user ids were given for 2 users"):
        UserSequences(items, np.array([0, 1, 2]), user_ids=["u"])
    with pytest.raises(ValueError, match="3 times were given for 2 items"):
        UserSequences(items, np.array([0, 2]), times=np.arange(3))


def test_arrow_lists_hold_the_same_sequences(sequences):
    table = sequences.to_arrow()
    assert table.column_names == ["user", "items", "behaviors", "times"]
    assert table["items"].to_pylist() == as_lists(sequences)
    assert table["times"].to_pylist() == [[10, 11], [], [12], [13, 14, 15]]


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_sequences_are_loaded_equal(sequences, mmap, tmp_path):
    sequences.save(tmp_path / "sequences")
    loaded = UserSequences.load(tmp_path / "sequences", mmap=mmap)
    assert isinstance(loaded.items, np.memmap) == mmap
    assert loaded.to_arrow().equals(sequences.to_arrow())
    assert loaded.behavior_vocabulary == ("view", "buy")
    assert as_lists(loaded.select(["x"])) == [[5, 4, 3]]


@pytest.mark.parametrize("histories", [HISTORIES, [], [[]]])
def test_sequences_without_names_and_times_are_saved_too(histories, tmp_path):
    sequences = UserSequences.from_histories(histories, VOCABULARY)
    sequences.save(tmp_path / "sequences")
    loaded = UserSequences.load(tmp_path / "sequences")
    assert as_lists(loaded) == as_lists(sequences)
    assert loaded.user_ids is None
    assert loaded.times is None


def test_saving_replaces_the_old_folder_whole(sequences, tmp_path):
    sequences.save(tmp_path / "sequences")
    UserSequences.from_histories([["A"]], VOCABULARY).save(tmp_path / "sequences")
    loaded = UserSequences.load(tmp_path / "sequences")
    assert as_lists(loaded) == [[3]]
    assert loaded.behaviors is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["sequences"]


def test_a_failed_save_leaves_the_old_folder(sequences, tmp_path, monkeypatch):
    sequences.save(tmp_path / "sequences")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        sequences.take([0]).save(tmp_path / "sequences")
    assert as_lists(UserSequences.load(tmp_path / "sequences")) == as_lists(sequences)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sequences"]


@pytest.mark.parametrize("file", ["offsets.npy", "items.npy", "sequences.json", "users.parquet"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_folder_is_an_error_that_says_so(sequences, tmp_path, file, damage):
    folder = tmp_path / "sequences"
    sequences.save(folder)
    if damage == "truncated":
        (folder / file).write_bytes((folder / file).read_bytes()[:-4])
    else:
        (folder / file).unlink()
    with pytest.raises(DataFileError, match="does not hold whole sequences"):
        UserSequences.load(folder)


def test_a_folder_that_is_not_there_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        UserSequences.load(tmp_path / "none")
