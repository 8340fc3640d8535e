import numpy as np
import pytest

from tfrec_llm.data import (
    MaskedBehavior,
    PackedBatches,
    UserSequences,
    Vocabulary,
    leave_last_out,
    load,
    masked_batches,
    next_batches,
    padded_batches,
)
from tfrec_llm.data.vocabulary import MASK, PADDING, UNKNOWN
from tfrec_llm.errors import EmptyLogError


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(3, 50, offsets[-1]).astype(np.int32)
    return UserSequences(items, offsets)


def histories(inputs):
    """The histories of a batch, one by one, as a plain loop reads them."""
    for row in range(len(inputs["items"])):
        for segment in range(1, inputs["segments"][row].max() + 1):
            yield row, np.flatnonzero(inputs["segments"][row] == segment)


def test_packed_batches_hold_every_behaviour_once_with_the_item_that_follows(sequences):
    batches = next_batches(sequences, batch_size=4, max_length=20)
    found = []
    for index in range(len(batches)):
        inputs, targets = batches[index]
        for row, places in histories(inputs):
            assert inputs["positions"][row, places].tolist() == list(range(len(places)))[::-1]
            read = inputs["items"][row, places].tolist()
            assert targets[row, places[:-1]].tolist() == read[1:]
            found.append((*read, int(targets[row, places[-1]])))
        assert (targets[inputs["segments"] == 0] == PADDING).all()
    expected = [tuple(sequences[user].tolist()) for user in range(len(sequences))]
    assert sorted(found) == sorted(history for history in expected if len(history) > 1)


def test_long_histories_keep_the_newest_and_the_rest_is_counted(sequences):
    batches = next_batches(sequences, max_length=5)
    cut = np.maximum(sequences.lengths - 6, 0).sum()
    assert batches.num_cut == cut > 0
    newest = {tuple(sequences[user][-6:].tolist()) for user in range(len(sequences))}
    inputs, targets = batches[0]
    for row, places in histories(inputs):
        assert (*inputs["items"][row, places], targets[row, places[-1]]) in newest


def test_masked_batches_hide_what_they_ask_for_and_nothing_else(sequences):
    batches = masked_batches(sequences, mask_rate=0.3, newest_rate=0.3, max_length=20)
    shown = PackedBatches(sequences, _Visible(), max_length=20)
    total = hidden = 0
    for index in range(len(batches)):
        inputs, targets = batches[index]
        items = shown[index][0]["items"]
        restored = inputs["items"].copy()
        rows, columns = np.nonzero(targets)
        places = inputs["target_positions"][rows, columns]
        assert (inputs["items"][rows, places] == MASK).all()
        restored[rows, places] = targets[rows, columns]
        np.testing.assert_array_equal(restored, items)
        total += (inputs["segments"] > 0).sum()
        hidden += len(rows)
    assert 0.2 < hidden / total < 0.35


class _Visible(MaskedBehavior):
    """The same packing with nothing hidden."""

    def __call__(self, batch, rng):
        return batch, batch["following"]


def test_a_share_of_histories_hides_only_the_newest_behaviour(sequences):
    batches = masked_batches(sequences, mask_rate=0.3, newest_rate=1.0)
    inputs, _ = batches[0]
    np.testing.assert_array_equal(
        inputs["items"] == MASK, (inputs["positions"] == 0) & (inputs["segments"] > 0)
    )


def test_a_row_that_drew_too_many_targets_keeps_the_surplus_visible():
    items = np.full((1, 64), 7, np.int32)
    batch = {
        "items": items,
        "segments": np.arange(1, 65, dtype=np.int32)[None],
        "positions": np.zeros((1, 64), np.int32),
        "following": items,
    }
    inputs, targets = MaskedBehavior(0.1, newest_rate=1.0)(batch, np.random.default_rng(0))
    assert targets.shape == (1, 12)
    assert (targets == 7).all()
    assert (inputs["items"] == MASK).sum() == 12


def test_unknown_items_are_read_but_never_asked_for():
    sequences = UserSequences(np.array([3, UNKNOWN, 4], np.int32), np.array([0, 3]))
    inputs, targets = next_batches(sequences)[0]
    assert inputs["items"][0, :2].tolist() == [3, UNKNOWN]
    assert targets[0, :2].tolist() == [PADDING, 4]
    masked, asked = masked_batches(sequences, mask_rate=0.99, newest_rate=0.0)[0]
    assert masked["items"][0, :3].tolist() == [MASK, UNKNOWN, MASK]
    assert sorted(asked[asked > 0].tolist()) == [3, 4]


def test_batches_repeat_by_seed_and_epoch_and_change_from_epoch_to_epoch(sequences):
    first, again = masked_batches(sequences, seed=3), masked_batches(sequences, seed=3)
    for epoch in (0, 1):
        first.set_epoch(epoch)
        again.set_epoch(epoch)
        for name, values in first[0][0].items():
            np.testing.assert_array_equal(values, again[0][0][name])
    before = first[0][0]["items"]
    first.on_epoch_end()
    assert (before != first[0][0]["items"]).any()


def test_padded_batches_put_users_in_order_and_the_newest_behaviour_last(sequences):
    batches = padded_batches(sequences, batch_size=64, max_length=10)
    user = 0
    for index in range(len(batches)):
        batch = batches[index]
        for row in range(len(batch["items"])):
            history = sequences[user][-10:]
            assert batch["items"][row, -len(history) :].tolist() == history.tolist()
            assert batch["segments"][row].sum() == len(history)
            user += 1
    assert user == len(sequences)


def test_tf_data_gives_the_same_batches(sequences):
    batches = next_batches(sequences, batch_size=4)
    expected = [batches[index] for index in range(len(batches))]
    again = next_batches(sequences, batch_size=4)
    for (inputs, targets), (got, asked) in zip(expected, again.to_tf_data(), strict=False):
        np.testing.assert_array_equal(targets, asked)
        np.testing.assert_array_equal(inputs["items"], got["items"])


def test_kinds_of_behaviour_travel_with_their_items():
    sequences = UserSequences(
        np.array([3, 4, 5], np.int32),
        np.array([0, 3]),
        behaviors=np.array([1, 2, 1], np.int32),
        behavior_vocabulary=("view", "buy"),
    )
    assert next_batches(sequences)[0][0]["behaviors"][0, :2].tolist() == [1, 2]
    assert padded_batches(sequences)[0]["behaviors"][0, -3:].tolist() == [1, 2, 1]


def test_users_without_a_target_are_an_error_that_counts_them():
    sequences = UserSequences(np.array([3, 4], np.int32), np.array([0, 1, 2]))
    with pytest.raises(EmptyLogError, match="None of 2 users has the 2 behaviours"):
        next_batches(sequences)


@pytest.mark.parametrize(("name", "max_length"), [("ml-1m", 200), ("beauty_s3", 50)])
def test_rows_of_real_logs_are_filled_to_nine_tenths(name, max_length, tfrec_data):
    train = leave_last_out(load(name, path=tfrec_data / name)).train
    sequences = UserSequences.from_log(train, Vocabulary.fit(train.item))
    for make in (next_batches, masked_batches):
        assert make(sequences, max_length=max_length).packing.fill > 0.97
