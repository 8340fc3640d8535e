import datetime
import os

import numpy as np
import pandas as pd
import pytest

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.splits import (
    impression_split,
    leave_last_out,
    random_split,
    temporal_split,
)
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import DataError, EmptyLogError, NullValueError


def random_log(*, seed, ties=True, rows=600, users=60):
    """Behaviours in no order, many of them at the same time; `row` names every one of them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "user": rng.integers(users, size=rows),
            "item": rng.integers(50, size=rows),
            "time": rng.integers(25, size=rows) if ties else rng.permutation(rows),
            "row": np.arange(rows),
        }
    )
    return BehaviorLog.from_pandas(frame, context=["row"])


SPLITS = {
    "leave_last_out": leave_last_out,
    "leave_last_out of two": lambda log: leave_last_out(log, min_length=2),
    "temporal_split": temporal_split,
    "random_split": random_split,
    "random_split of singles": lambda log: random_split(log, min_length=1),
}


def rows_of(log):
    return log.table["row"].to_numpy()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
def test_no_held_out_behaviour_leaks_into_training_or_into_a_history(split, ties, seed):
    log = random_log(seed=seed, ties=ties)
    parts = split(log)
    train, valid, test = (set(rows_of(part)) for part in (parts.train, parts.valid, parts.test))
    assert train
    assert valid
    assert test
    assert not train & valid
    assert not train & test
    assert not valid & test
    place = np.empty(len(log), int)
    place[log.order()] = np.arange(len(log))
    codes, _ = log.user_codes()
    for held_out in (parts.valid, parts.test):
        history = rows_of(held_out.history)
        assert not set(history) & set(rows_of(held_out))
        first_held_out = np.full(len(log), len(log))
        np.minimum.at(first_held_out, codes[rows_of(held_out)], place[rows_of(held_out)])
        assert (place[history] < first_held_out[codes[history]]).all()
    assert not set(rows_of(parts.valid.history)) & test


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["leave_last_out", "temporal_split"])
def test_nothing_is_lost_and_test_histories_hold_all_before(name, seed):
    parts = SPLITS[name](random_log(seed=seed))
    train, valid, test = (rows_of(part) for part in (parts.train, parts.valid, parts.test))
    assert sorted([*train, *valid, *test]) == list(range(600))
    assert rows_of(parts.valid.history).tolist() == train.tolist()
    assert rows_of(parts.test.history).tolist() == sorted([*train, *valid])


def test_the_last_behaviour_is_the_latest_and_of_ties_the_lower_row():
    frame = pd.DataFrame(
        {
            "user": ["u", "v", "u", "u", "w", "u", "v", "v"],
            "item": ["A", "B", "C", "D", "E", "F", "G", "H"],
            "time": [9, 2, 1, 9, 1, 3, 2, 2],
        }
    )
    split = leave_last_out(BehaviorLog.from_pandas(frame))
    assert split.test.table.select(["user", "item"]).to_pylist() == [
        {"user": "u", "item": "D"},
        {"user": "v", "item": "H"},
    ]
    assert split.valid.item.to_pylist() == ["A", "G"]
    assert split.train.item.to_pylist() == ["B", "C", "E", "F"]


def test_histories_keep_the_order_of_ties():
    frame = pd.DataFrame({"user": 1, "item": list("EDCBA"), "time": 0})
    history = leave_last_out(BehaviorLog.from_pandas(frame)).test.history
    vocabulary = Vocabulary(list("ABCDE"))
    sequences = UserSequences.from_log(history, vocabulary)
    assert vocabulary.decode(sequences[0]).tolist() == list("EDCB")


def test_short_users_stay_in_training_whole():
    log = BehaviorLog.from_pandas(
        pd.DataFrame({"user": [1, 1, 2, 2, 2, 3], "item": list("ABCDEF"), "time": range(6)})
    )
    split = leave_last_out(log)
    assert split.train.item.to_pylist() == ["A", "B", "C", "F"]
    assert split.test.item.to_pylist() == ["E"]
    split = leave_last_out(log, min_length=2)
    assert split.valid.item.to_pylist() == ["A", "D"]
    assert split.train.item.to_pylist() == ["C", "F"]
    with pytest.raises(EmptyLogError, match=r"No user has 4 or more behaviours .* is 3"):
        leave_last_out(log, min_length=4)
    with pytest.raises(ValueError, match="at least 2"):
        leave_last_out(log, min_length=1)


@pytest.mark.parametrize("split", [leave_last_out, temporal_split, random_split])
def test_an_empty_log_and_missing_values_are_errors(split):
    log = random_log(seed=0)
    with pytest.raises(EmptyLogError):
        split(log.take(np.zeros(600, bool)))
    frame = log.to_pandas().astype({"item": float})
    frame.loc[3, "item"] = np.nan
    with pytest.raises(NullValueError, match="DropNulls"):
        split(BehaviorLog.from_pandas(frame))


def test_moments_cut_the_log_and_equal_times_stay_together():
    log = random_log(seed=1)
    split = temporal_split(log, valid_from=15, test_from=20)
    assert split.train.times().max() == 14
    assert (split.valid.times().min(), split.valid.times().max()) == (15, 19)
    assert split.test.times().min() == 20


def test_shares_are_met_as_nearly_as_ties_permit():
    split = temporal_split(random_log(seed=1, ties=False, rows=1000), valid=0.2, test=0.1)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [700, 200, 100]
    split = temporal_split(random_log(seed=1, ties=False), valid=1e-9, test=1e-9)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [598, 1, 1]
    split = temporal_split(random_log(seed=1), valid=0.2, test=0.2)
    assert split.train.times().max() < split.valid.times().min()
    assert split.valid.times().max() < split.test.times().min()


@pytest.mark.parametrize(
    "convert",
    [
        lambda day: f"2024-01-{day:02}",
        lambda day: datetime.datetime(2024, 1, day),
        lambda day: datetime.date(2024, 1, day),
        lambda day: pd.Timestamp(2024, 1, day),
        lambda day: np.datetime64(f"2024-01-{day:02}"),
    ],
)
def test_moments_are_given_as_dates_of_any_kind(convert):
    days = pd.date_range("2024-01-01", periods=6)
    log = BehaviorLog.from_pandas(pd.DataFrame({"user": 1, "item": list("ABCDEF"), "time": days}))
    split = temporal_split(log, valid_from=convert(4), test_from=convert(5))
    assert split.train.item.to_pylist() == ["A", "B", "C"]
    assert split.test.item.to_pylist() == ["E", "F"]


def test_moments_between_fractional_times_cut_them():
    frame = pd.DataFrame({"user": 1, "item": list("ABCD"), "time": [0.5, 1.25, 1.75, 3.0]})
    split = temporal_split(BehaviorLog.from_pandas(frame), valid_from=1.25, test_from=2)
    assert split.valid.item.to_pylist() == ["B", "C"]
    whole = BehaviorLog.from_pandas(frame.assign(time=[1, 2, 3, 4]))
    assert temporal_split(whole, valid_from=1.5, test_from=3.5).valid.item.to_pylist() == ["B", "C"]


def test_cuts_that_make_no_sense_are_errors():
    log = random_log(seed=1)
    with pytest.raises(EmptyLogError, match="Nothing is left for test"):
        temporal_split(log, valid_from=10, test_from=30)
    with pytest.raises(EmptyLogError, match="Nothing is left for train"):
        temporal_split(log, valid_from=0, test_from=10)
    with pytest.raises(EmptyLogError, match="Nothing is left for"):
        temporal_split(log.take(log.times() == 3))
    with pytest.raises(ValueError, match="later than"):
        temporal_split(log, valid_from=10, test_from=9)
    with pytest.raises(ValueError, match="both"):
        temporal_split(log, test_from=9)
    with pytest.raises(ValueError, match="above 0"):
        temporal_split(log, valid=0.5, test=0.5)
    with pytest.raises(DataError, match="times are of type int64"):
        temporal_split(log, valid_from="2024-01-01", test_from="2024-02-01")


def impression_log(*, seed):
    history = random_log(seed=seed)
    shown = random_log(seed=seed + 100, rows=200).to_pandas().assign(label=1.0)
    log = BehaviorLog.from_pandas(shown, label="label", context=["row"])
    return BehaviorLog(log.table, history=history)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "cuts",
    [{}, {"test_from": 20}, {"valid_from": 10}, {"valid_from": 10, "test_from": 20}],
    ids=str,
)
def test_an_impression_split_shows_no_part_what_follows_it(cuts, seed):
    log = impression_log(seed=seed)
    split = impression_split(log, **cuts)
    parts = (split.train, split.valid, split.test)
    assert sorted(row for part in parts for row in rows_of(part)) == list(range(200))
    for earlier, later in ((split.train, split.valid), (split.valid, split.test)):
        start = later.times().min()
        assert earlier.times().max() < start
        # All that is before the cut may be learned from, whoever did it.
        kept = np.flatnonzero(log.history.times() < start)
        assert rows_of(earlier.history).tolist() == kept.tolist()
    assert len(split.test.history) == len(log.history)
    anew = split.valid.concat(split.train)
    assert len(anew) == len(split.valid) + len(split.train)
    assert anew.history is split.valid.history


def test_shares_of_an_impression_split_are_met_and_ties_stay_together():
    split = impression_split(impression_log(seed=1), test=0.3, valid=0.2)
    lengths = [len(part) for part in (split.train, split.valid, split.test)]
    assert lengths[2] >= 60
    assert lengths[1] >= 0.2 * (200 - lengths[2]) - 1
    assert lengths[0] > 80


def test_impression_splits_that_make_no_sense_are_errors():
    log = impression_log(seed=1)
    with pytest.raises(EmptyLogError, match="Nothing is left for test"):
        impression_split(log, test_from=30)
    with pytest.raises(EmptyLogError, match="No impression is before the test"):
        impression_split(log, test_from=0)
    with pytest.raises(EmptyLogError, match="Nothing is left for train"):
        impression_split(log, valid_from=0, test_from=10)
    with pytest.raises(ValueError, match="later than"):
        impression_split(log, valid_from=20, test_from=10)
    with pytest.raises(ValueError, match="above 0"):
        impression_split(log, valid=0.0)
    with pytest.raises(EmptyLogError, match="no rows"):
        impression_split(log.take(np.zeros(200, bool)))
    dated = pd.DataFrame({"user": [1], "item": [2], "time": pd.to_datetime(["2024-05-01"])})
    other = BehaviorLog(log.table, history=BehaviorLog.from_pandas(dated))
    with pytest.raises(DataError, match=r"int64, those of its history timestamp"):
        impression_split(other)


def test_a_split_of_impressions_without_a_history_has_none():
    split = impression_split(BehaviorLog(impression_log(seed=2).table))
    assert split.train.history is split.valid.history is split.test.history is None


def test_held_out_users_are_new_to_training_and_have_one_target():
    log = random_log(seed=2)
    split = random_split(log, valid=0.1, test=0.2, seed=3)
    _, trained = split.train.user_codes()
    for part, number in ((split.valid, 6), (split.test, 12)):
        _, users = part.user_codes()
        assert len(users) == len(part) == number
        assert not set(users.to_pylist()) & set(trained.to_pylist())
        assert set(part.history.user.to_pylist()) == set(users.to_pylist())
    assert len(split.train) + sum(
        len(part) + len(part.history) for part in (split.valid, split.test)
    ) == len(log)


def test_a_seed_repeats_the_split_and_another_changes_it():
    log = random_log(seed=2)
    tests = [rows_of(random_split(log, seed=seed).test).tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_too_few_users_for_three_parts_are_an_error():
    log = random_log(seed=2)
    with pytest.raises(EmptyLogError, match="too few"):
        random_split(log.take(log.user_codes()[0] < 2))


@pytest.mark.skipif("TFREC_DATA" not in os.environ, reason="ml-1m is read from TFREC_DATA")
def test_the_last_movies_of_movielens_are_those_of_the_published_order():
    from tfrec_llm.data.datasets import load

    log = load("ml-1m")
    frame = log.to_pandas()
    last = frame.groupby("user", sort=False).item.agg(["last", lambda item: item.iloc[-2]])
    split = leave_last_out(log)
    assert split.test.item.to_pylist() == last["last"].tolist()
    assert split.valid.item.to_pylist() == last.iloc[:, 1].tolist()
    tied = frame.assign(time=0)
    again = leave_last_out(BehaviorLog.from_pandas(tied)).test
    assert again.item.to_pylist() == last["last"].tolist()
    # In another row order, times alone decide.
    mixed = frame.sample(frac=1, random_state=0)
    again = leave_last_out(BehaviorLog.from_pandas(mixed)).test.to_pandas()
    assert dict(zip(again.user, again.item, strict=True)) == last["last"].to_dict()
