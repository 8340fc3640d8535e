import numpy as np
import pandas as pd
import pytest

import tfrec_llm
from tfrec_llm.data import BehaviorLog, UserSequences, Vocabulary
from tfrec_llm.data.impression_batches import RankingBatches, behaviors_before, ranking_batches
from tfrec_llm.data.vocabulary import MASK
from tfrec_llm.errors import DataError, EmptyLogError, MissingColumnError

USERS, IMPRESSIONS = 50, 1000


@pytest.fixture(scope="module")
def shop():
    """Histories with equal times among them, and impressions, some of unknown users."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 40, USERS)
    offsets = np.append(0, np.cumsum(lengths))
    sequences = UserSequences(
        rng.integers(3, 99, offsets[-1]).astype(np.int32),
        offsets,
        times=np.concatenate([np.sort(rng.integers(0, 100, length)) for length in lengths]),
    )
    impressions = {
        "users": rng.integers(-1, USERS, IMPRESSIONS),
        "times": rng.integers(0, 101, IMPRESSIONS),
        "candidates": np.arange(IMPRESSIONS),
        "labels": rng.random(IMPRESSIONS),
    }
    return sequences, impressions


def history_before(sequences, user, time):
    """A plain count of what a user did strictly before a time."""
    if user < 0:
        return []
    own = slice(sequences.offsets[user], sequences.offsets[user + 1])
    pairs = zip(sequences.items[own], sequences.times[own], strict=True)
    return [int(item) for item, then in pairs if then < time]


def test_only_what_is_strictly_older_counts(shop):
    sequences, impressions = shop
    found = behaviors_before(sequences, impressions["users"], impressions["times"])
    expected = [
        len(history_before(sequences, user, time))
        for user, time in zip(impressions["users"], impressions["times"], strict=True)
    ]
    assert found.tolist() == expected


@pytest.mark.parametrize("histories", ["own", "shared", "masked"])
@pytest.mark.parametrize("max_length", [5, 8, 100])
def test_every_impression_is_asked_once_behind_its_own_history(shop, histories, max_length):
    sequences, impressions = shop
    batches = RankingBatches(
        sequences,
        **impressions,
        context={"hour": np.arange(IMPRESSIONS) % 24, "flags": np.eye(IMPRESSIONS, 3)},
        max_length=max_length,
        batch_size=256,
        histories=histories,
        shuffle=True,
    )
    least = max_length // 2 if histories == "shared" else max_length
    for _ in range(2):
        seen = []
        for index in range(len(batches)):
            inputs, labels, weights = batches[index]
            asked = batches.impressions(index)
            assert (weights == (asked >= 0)).all()
            for row, target in zip(*np.nonzero(asked >= 0), strict=True):
                one = asked[row, target]
                seen.append(one)
                assert inputs["candidates"][row, target] == one
                assert inputs["context_hour"][row, target] == one % 24
                assert (
                    inputs["context_flags"][row, target].tolist() == np.eye(1, 3, one)[0].tolist()
                )
                assert labels[row, target, 0] == np.float32(impressions["labels"][one])
                older = history_before(
                    sequences, impressions["users"][one], impressions["times"][one]
                )
                read = inputs["history_lengths"][row, target]
                assert min(len(older), least) <= read <= min(len(older), max_length)
                newest = inputs["target_positions"][row, target]
                if histories == "masked":
                    assert inputs["items"][row, newest] == MASK
                    assert inputs["positions"][row, newest] == 0
                    newest -= 1
                if read:
                    places = np.arange(newest - read + 1, newest + 1)
                    assert inputs["items"][row, places].tolist() == older[-read:]
                    segments = inputs["segments"][row]
                    assert (segments[places] == segments[newest]).all()
                    # All that is older in the segment is the history.
                    begin = np.flatnonzero(segments == segments[newest])[0]
                    assert begin == places[0]
        assert sorted(seen) == list(range(IMPRESSIONS))
        batches.on_epoch_end()


def test_all_batches_have_the_same_places_and_targets(shop):
    sequences, impressions = shop
    batches = RankingBatches(sequences, **impressions, batch_size=50, histories="shared")
    shapes = {(b[0]["items"].shape[1], *b[1].shape[1:]) for b in batches}
    assert shapes == {(batches.row_length, batches.num_targets, 1)}


def test_a_small_batch_is_a_row(shop):
    sequences, impressions = shop
    batches = RankingBatches(sequences, **impressions, batch_size=1, histories="shared")
    assert len(batches) == batches.packing.num_rows < IMPRESSIONS
    asked = [batches.impressions(index) for index in range(len(batches))]
    assert sorted(np.concatenate([one[one >= 0] for one in asked])) == list(range(IMPRESSIONS))


def test_shared_readings_take_far_less_room(shop):
    sequences, impressions = shop
    places = {
        histories: sum(
            batch[0]["items"].size
            for batch in RankingBatches(sequences, **impressions, histories=histories)
        )
        for histories in ("own", "shared")
    }
    assert places["shared"] * 5 < places["own"]


def test_epochs_differ_and_a_seed_repeats_them(shop):
    sequences, impressions = shop
    first, second = (
        RankingBatches(sequences, **impressions, batch_size=100, shuffle=True, seed=3)
        for _ in range(2)
    )
    begin = first.impressions(0).tolist()
    assert begin == second.impressions(0).tolist()
    first.on_epoch_end()
    assert begin != first.impressions(0).tolist()
    first.set_epoch(0)
    assert begin == first.impressions(0).tolist()


def items_read(inputs, row, target):
    end = inputs["target_positions"][row, target] + 1
    return inputs["items"][row, end - inputs["history_lengths"][row, target] : end].tolist()


@pytest.fixture
def clicks():
    history = BehaviorLog.from_pandas(
        pd.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 3], "time": [10, 20, 30]})
    )
    shown = pd.DataFrame(
        {
            "user": ["a", "b", "c"],
            "item": [3, 9, 1],
            "time": [20, 40, 50],
            "label": [1.0, 0.0, 1.0],
            "bought": [0.0, 0.0, 1.0],
        }
    )
    log = BehaviorLog.from_pandas(shown, label="label", context=["bought"])
    return BehaviorLog(log.table, history=history)


def test_the_function_is_found_beside_the_class():
    assert tfrec_llm.data.RankingBatches is RankingBatches
    assert tfrec_llm.data.ranking_batches is ranking_batches


def test_an_impression_log_becomes_batches(clicks):
    vocabulary = Vocabulary([1, 2, 3])
    batches = ranking_batches(clicks, vocabulary, labels=("label", "bought"))
    found = {}
    for index in range(len(batches)):
        inputs, labels, _ = batches[index]
        asked = batches.impressions(index)
        for row, target in zip(*np.nonzero(asked >= 0), strict=True):
            found[int(asked[row, target])] = (
                int(inputs["candidates"][row, target]),
                items_read(inputs, row, target),
                labels["label"][row, target, 0],
                labels["bought"][row, target, 0],
            )
    # Item 9 and user c are not known: index 2, and no history.
    assert found == {0: (5, [3], 1, 0), 1: (2, [5], 0, 0), 2: (3, [], 1, 1)}


def test_tasks_may_be_called_otherwise_than_their_columns(clicks):
    by_task = {"click": "label", "conversion": "bought"}
    batches, named = (
        ranking_batches(clicks, Vocabulary([1, 2, 3]), labels=labels)
        for labels in (by_task, list(by_task.values()))
    )
    _, labels, _ = batches[0]
    assert list(labels) == ["click", "conversion"]
    for task, column in by_task.items():
        np.testing.assert_array_equal(labels[task], named[0][1][column])
    with pytest.raises(MissingColumnError, match="'ordered'"):
        ranking_batches(clicks, Vocabulary([1]), labels={"conversion": "ordered"})


def test_no_label_is_among_the_inputs(clicks):
    inputs = ranking_batches(clicks, Vocabulary([1, 2, 3]), labels=None)[0]
    assert sorted(inputs) == [
        *("candidates", "history_lengths", "items", "positions", "segments", "target_positions")
    ]


def test_what_does_not_fit_is_told(shop, clicks):
    sequences, impressions = shop
    with pytest.raises(DataError, match="labels has 3 values, but there are 1,000 impressions"):
        RankingBatches(sequences, **impressions | {"labels": [0, 1, 0]})
    labels = np.where(np.arange(IMPRESSIONS) < 2, np.nan, 1.0)
    with pytest.raises(DataError, match="2 of 1,000 labels in 'labels' are missing"):
        RankingBatches(sequences, **impressions | {"labels": labels})
    untimed = UserSequences(sequences.items, sequences.offsets)
    with pytest.raises(DataError, match="have no times"):
        RankingBatches(untimed, **impressions)
    with pytest.raises(EmptyLogError, match="no impressions"):
        RankingBatches(sequences, users=[], times=[], candidates=[])
    with pytest.raises(EmptyLogError, match="have no history"):
        ranking_batches(BehaviorLog(clicks.table), Vocabulary([1]))
    with pytest.raises(ValueError, match="histories must be one of"):
        RankingBatches(sequences, **impressions, histories="all")
    with pytest.raises(ValueError, match="max_length and batch_size must be positive"):
        RankingBatches(sequences, **impressions, max_length=0)
