"""Which stretch of every history an epoch reads."""

import numpy as np
import pytest

from tfrec_llm.data import NextBehavior, PackedBatches, UserSequences


def histories(lengths):
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    # An item tells its user and its place.
    items = np.concatenate([1000 * (user + 1) + np.arange(n) for user, n in enumerate(lengths)])
    return UserSequences(items.astype(np.int32), offsets)


def read(batches):
    """Returns for every user the items read in an epoch and the targets, in order."""
    inputs, targets = [], []
    for index in range(len(batches)):
        batch, target = batches[index]
        shown = batch["segments"] > 0
        inputs.append(batch["items"][shown])
        targets.append(target[shown])
    items, targets = np.concatenate(inputs), np.concatenate(targets)
    users = items // 1000
    return {user: (items[users == user], targets[users == user]) for user in np.unique(users)}


def test_random_windows_read_every_place_sooner_or_later_and_stay_whole():
    batches = PackedBatches(
        histories([30, 4]), NextBehavior(), max_length=5, windows="random", batch_size=4
    )
    places = set()
    for _ in range(60):
        for user, (items, targets) in read(batches).items():
            assert (np.diff(items) == 1).all()
            assert (targets == items + 1).all()
            assert len(items) == (5 if user == 1 else 3)
        places |= set(read(batches)[1][0] - 1000)
        batches.on_epoch_end()
    assert places == set(range(29))


def test_newest_windows_are_the_newest_behaviours():
    batches = PackedBatches(histories([30]), NextBehavior(), max_length=5)
    assert (read(batches)[1][1] == 1000 + np.arange(25, 30)).all()
    assert batches.num_cut == 24


def test_prefixes_end_at_every_place_and_count_positions_from_their_end():
    batches = PackedBatches(histories([8]), NextBehavior(), max_length=5, prefix_rate=1.0)
    ends = set()
    for _ in range(80):
        inputs, targets = batches[0]
        shown = inputs["segments"] > 0
        assert (inputs["positions"][shown] == np.arange(shown.sum())[::-1]).all()
        ends.add(int(targets[shown].max()) - 1000)
        batches.on_epoch_end()
    assert ends == set(range(1, 8))


def test_half_of_the_users_keep_their_whole_history_at_a_rate_of_a_half():
    batches = PackedBatches(histories([50] * 400), NextBehavior(), prefix_rate=0.5)
    whole = np.mean([len(items) == 49 for items, _ in read(batches).values()])
    assert 0.4 < whole < 0.65


def test_epochs_repeat_by_their_number():
    options = {"max_length": 5, "windows": "random", "prefix_rate": 0.5}
    one = PackedBatches(histories([30, 20, 9]), NextBehavior(), **options)
    other = PackedBatches(histories([30, 20, 9]), NextBehavior(), **options)
    one.on_epoch_end()
    other.set_epoch(1)
    np.testing.assert_array_equal(one[0][0]["items"], other[0][0]["items"])


@pytest.mark.parametrize(("option", "value"), [("windows", "oldest"), ("prefix_rate", 1.5)])
def test_misspelt_options_are_told(option, value):
    with pytest.raises(ValueError, match=option):
        PackedBatches(histories([5]), NextBehavior(), **{option: value})
