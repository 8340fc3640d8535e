import numpy as np
import pandas as pd
import pytest

from tfrec_llm.data import BehaviorLog, PairBatches, ShopSimulator, Vocabulary
from tfrec_llm.errors import EmptyLogError


@pytest.fixture(scope="module")
def log():
    return ShopSimulator(50, 20, seed=0).simulate()


def batches_of(log, **options):
    return PairBatches(log, Vocabulary.fit(log.user), Vocabulary.fit(log.item), **options)


def pairs_of(batches):
    parts = [batches[index] for index in range(len(batches))]
    users, items = (np.concatenate([pair[side] for pair, _ in parts]) for side in (0, 1))
    return users, items, np.concatenate([labels for _, labels in parts])


def test_every_row_is_there_once_and_drawn_pairs_are_none_of_them(log):
    batches = batches_of(log, negatives=3, batch_size=100)
    users, items, labels = pairs_of(batches)
    assert len(labels) == 4 * len(log)
    taken = set(zip(batches.users.tolist(), batches.items.tolist(), strict=True))
    found = list(zip(users.tolist(), items.tolist(), strict=True))
    clicked = sorted(pair for pair, label in zip(found, labels, strict=True) if label)
    assert clicked == sorted(zip(batches.users.tolist(), batches.items.tolist(), strict=True))
    assert not taken & {pair for pair, label in zip(found, labels, strict=True) if not label}
    # Each user is asked three times for each of their rows, by all items that are left.
    np.testing.assert_array_equal(
        np.bincount(users[labels == 0]), 3 * np.bincount(users[labels == 1])
    )
    assert len(np.unique(items[labels == 0])) == 20


def test_epochs_draw_anew_and_a_seed_repeats_them(log):
    batches = batches_of(log, seed=5)
    first = batches[0]
    batches.on_epoch_end()
    assert not np.array_equal(batches[0][0][1], first[0][1])
    again = batches_of(log, seed=5)[0]
    np.testing.assert_array_equal(again[0][1], first[0][1])


def test_nothing_to_draw_or_to_learn_is_told():
    everything = BehaviorLog.from_pandas(
        pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "time": [1, 2, 3]})
    )
    with pytest.raises(ValueError, match="A user has taken every item"):
        batches_of(everything)
    assert len(batches_of(everything, negatives=0)[0][1]) == 3
    with pytest.raises(EmptyLogError, match="no rows"):
        batches_of(everything.take(np.zeros(0, int)))
