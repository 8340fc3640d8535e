import datetime

import numpy as np
import pyarrow as pa
import pytest

from tfrec_llm.data import (
    BehaviorLog,
    Sessions,
    UserSequences,
    Vocabulary,
    next_session_batches,
    split_sessions,
)
from tfrec_llm.data.vocabulary import MASK
from tfrec_llm.errors import DataError, EmptyLogError, MissingColumnError, NullValueError

VOCABULARY = Vocabulary(list("ABCDEFG"))


def log(**columns):
    rows = len(columns["item"])
    table = pa.table({"user": [1] * rows, "time": range(rows)} | columns)
    context = [name for name in table.column_names if name in ("visit",)]
    behavior = "behavior" if "behavior" in table.column_names else None
    return BehaviorLog.from_arrow(table, context=context, behavior=behavior)


def items(sessions):
    return ["".join(VOCABULARY.decode(sessions.sequences[row])) for row in range(len(sessions))]


def test_a_longer_pause_begins_a_session():
    behaviors = log(item=list("ABCDE"), time=[0, 10, 20, 31, 41])
    assert items(split_sessions(behaviors, VOCABULARY, gap=10)) == ["ABC", "DE"]
    assert items(split_sessions(behaviors, VOCABULARY, gap=0)) == list("ABCDE")
    assert items(split_sessions(behaviors, VOCABULARY, gap=11)) == ["ABCDE"]


def test_sessions_of_a_user_stand_together_whatever_the_order_of_the_log():
    behaviors = log(item=list("ABCDEF"), user=[2, 1, 2, 1, 2, 1], time=[90, 5, 1, 80, 2, 6])
    sessions = split_sessions(behaviors, VOCABULARY, gap=10)
    assert items(sessions) == ["CE", "A", "BF", "D"]
    assert sessions.users.tolist() == [0, 0, 1, 1]
    assert sessions.followed.tolist() == [0, 2]
    assert sessions.sequences.times.tolist() == [1, 2, 90, 5, 6, 80]


@pytest.mark.parametrize("gap", ["30min", datetime.timedelta(minutes=30)])
def test_a_gap_is_a_duration_where_times_are_of_day(gap):
    times = [datetime.datetime(2024, 5, 1, 8, minute) for minute in (0, 30)]
    behaviors = log(item=list("ABC"), time=[*times, datetime.datetime(2024, 5, 1, 9, 1)])
    assert items(split_sessions(behaviors, VOCABULARY, gap=gap)) == ["AB", "C"]
    with pytest.raises(DataError, match="gap is 30, but the log's times are timestamps"):
        split_sessions(behaviors, VOCABULARY, gap=30)


def test_a_column_names_sessions_that_may_overlap():
    behaviors = log(item=list("ABCDE"), visit=["x", "y", "x", "y", "z"], user=[1, 1, 1, 1, 2])
    sessions = split_sessions(behaviors, VOCABULARY, column="visit")
    assert items(sessions) == ["AC", "BD", "E"]
    assert sessions.users.tolist() == [0, 0, 1]


def test_one_name_for_two_users_makes_two_sessions():
    behaviors = log(item=list("ABCD"), visit=[1, 1, 1, 2], user=[1, 2, 1, 2])
    sessions = split_sessions(behaviors, VOCABULARY, column="visit")
    assert items(sessions) == ["AC", "B", "D"]


def test_kinds_of_behavior_go_with_their_items():
    behaviors = log(item=list("ABCD"), visit=[1, 2, 1, 2], behavior=["view", "buy", "view", "view"])
    sequences = split_sessions(behaviors, VOCABULARY, column="visit").sequences
    assert sequences.behaviors.tolist() == [1, 1, 2, 1]
    assert sequences.behavior_vocabulary == ("view", "buy")


def test_what_cannot_be_split_is_told():
    behaviors = log(item=list("AB"), visit=[1, None])
    for options in ({}, {"gap": 1, "column": "visit"}):
        with pytest.raises(ValueError, match="give one of gap= and column="):
            split_sessions(behaviors, VOCABULARY, **options)
    with pytest.raises(ValueError, match="gap must not be negative, got -1"):
        split_sessions(behaviors, VOCABULARY, gap=-1)
    with pytest.raises(NullValueError, match="1 of 2 rows have no visit"):
        split_sessions(behaviors, VOCABULARY, column="visit")
    with pytest.raises(MissingColumnError, match="basket"):
        split_sessions(behaviors, VOCABULARY, column="basket")
    with pytest.raises(EmptyLogError, match="no rows"):
        split_sessions(behaviors.take([]), VOCABULARY, gap=1)


def random_sessions(seed=0, num_users=40, kinds=False):
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(0, num_users, 4 * num_users))
    lengths = rng.integers(1, 9, len(users))
    flat = rng.integers(3, 5000, lengths.sum()).astype("int32")
    behaviors = rng.integers(1, 4, len(flat)).astype("int32") if kinds else None
    offsets = np.append(0, np.cumsum(lengths))
    return Sessions(UserSequences(flat, offsets, behaviors=behaviors), users)


def pairs(batches):
    """(first items, second items, label) of every pair of the epoch."""
    found = []
    for index in range(len(batches)):
        inputs, labels, weights = batches[index]
        for row in range(len(labels)):
            for pair in range(labels.shape[1]):
                inside = inputs["items"][row][inputs["segments"][row] == pair + 1]
                assert bool(len(inside)) == bool(weights[row, pair])
                if len(inside):
                    (cut,) = np.flatnonzero(inside == MASK)
                    newest = inputs["target_positions"][row, pair]
                    assert inputs["positions"][row, newest] == 0
                    assert inputs["segments"][row, newest] == pair + 1
                    both = tuple(inside[:cut]), tuple(inside[cut + 1 :])
                    found.append((*both, labels[row, pair]))
                else:
                    assert labels[row, pair] == 0
    return found


def test_pairs_are_of_one_user_if_they_follow_and_of_two_if_not():
    sessions = random_sessions()
    contents = [tuple(sessions.sequences[row]) for row in range(len(sessions))]
    following = {(contents[row], contents[row + 1]) for row in sessions.followed}
    owners = {}
    for content, user in zip(contents, sessions.users, strict=True):
        owners.setdefault(content, set()).add(user)
    batches = next_session_batches(sessions)
    for epoch in range(3):
        batches.set_epoch(epoch)
        found = pairs(batches)
        assert sorted(first for first, _, _ in found) == sorted(
            contents[row] for row in sessions.followed
        )
        for first, second, label in found:
            assert ((first, second) in following) == bool(label)
            if not label:
                assert owners[second] - owners[first]
        assert 0.35 < np.mean([label for *_, label in found]) < 0.65


def test_a_session_of_another_user_is_as_likely_as_any_other():
    sessions = Sessions(
        UserSequences(np.arange(3, 9, dtype="int32"), np.arange(7)), np.array([0, 0, 1, 1, 1, 2])
    )
    batches = next_session_batches(sessions, follow_rate=0.01)
    drawn = {first: [] for first in (3, 5, 6)}
    for epoch in range(400):
        batches.set_epoch(epoch)
        for (first,), (second,), label in pairs(batches):
            if not label:
                drawn[first].append(second)
    for first, others in ((3, [5, 6, 7, 8]), (5, [3, 4, 8]), (6, [3, 4, 8])):
        values, counts = np.unique(drawn[first], return_counts=True)
        assert values.tolist() == others
        np.testing.assert_allclose(counts / counts.sum(), 1 / len(others), atol=0.08)


def test_a_drawn_session_just_like_the_next_one_counts_as_following():
    same = Sessions(UserSequences(np.array([3, 4, 4], "int32"), np.arange(4)), np.array([0, 0, 1]))
    batches = next_session_batches(same, follow_rate=0.01)
    assert {label for epoch in range(20) for *_, label in _of(batches, epoch)} == {1.0}


def _of(batches, epoch):
    batches.set_epoch(epoch)
    return pairs(batches)


def test_sessions_are_read_where_they_meet():
    visits = UserSequences(
        np.array([*range(3, 9), *range(9, 15), 20], "int32"), np.array([0, 6, 12, 13])
    )
    batches = next_session_batches(Sessions(visits, np.array([0, 0, 1])), max_length=2)
    for epoch in range(10):
        for first, second, label in _of(batches, epoch):
            assert first == (7, 8)
            assert second == ((9, 10) if label else (20,))


def test_kinds_of_behavior_stand_beside_their_items_and_the_mask_has_none():
    sessions = random_sessions(kinds=True)
    kind_of = {}
    for place, item in enumerate(sessions.sequences.items):
        kind_of.setdefault(int(item), set()).add(int(sessions.sequences.behaviors[place]))
    inputs, *_ = next_session_batches(sessions)[0]
    for item, kind in zip(inputs["items"].ravel(), inputs["behaviors"].ravel(), strict=True):
        assert kind == 0 if item < 3 else kind in kind_of[int(item)]


def test_epochs_differ_repeat_by_seed_and_have_equally_many_batches():
    batches = next_session_batches(random_sessions(), batch_size=2, seed=3)
    again = next_session_batches(random_sessions(), batch_size=2, seed=3)
    number = len(batches)
    first = pairs(batches)
    batches.on_epoch_end()
    again.set_epoch(1)
    assert pairs(batches) == pairs(again) != first
    for epoch in range(12):
        batches.set_epoch(epoch)
        assert len(batches) == number
        assert len(pairs(batches)) == len(first)


def test_sessions_without_pairs_are_refused():
    single = UserSequences(np.array([3, 4, 5], "int32"), np.arange(4))
    for users in ([0, 1, 2], [0, 0, 0]):
        with pytest.raises(
            EmptyLogError, match="a user with two sessions, and sessions of another"
        ):
            next_session_batches(Sessions(single, np.array(users)))
    with pytest.raises(ValueError, match="follow_rate must lie between 0 and 1, got 1"):
        next_session_batches(Sessions(single, np.array([0, 0, 1])), follow_rate=1)
    with pytest.raises(ValueError, match="max_length must be positive, got 0"):
        next_session_batches(Sessions(single, np.array([0, 0, 1])), max_length=0)


def test_sessions_that_do_not_fit_their_users_are_refused():
    visits = UserSequences(np.array([3, 4, 5], "int32"), np.arange(4))
    for users in ([0, 1], [1, 0, 0]):
        with pytest.raises(ValueError, match="the user of each of 3 sessions, in rising order"):
            Sessions(visits, np.array(users))
    empty = UserSequences(np.array([3, 4], "int32"), np.array([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="A session is empty"):
        Sessions(empty, np.array([0, 0, 1]))


def test_a_log_becomes_pairs_by_its_gap():
    behaviors = log(item=list("ABCA"), user=[1, 1, 2, 2], time=[0, 50, 0, 1])
    batches = next_session_batches(behaviors, vocabulary=VOCABULARY, gap=10)
    ((first, _, _),) = pairs(batches)
    assert first == (3,)
