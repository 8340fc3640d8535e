import numpy as np
import pytest

from tfrec_llm.data import JointBatches, Sessions, UserSequences, next_batches, next_session_batches


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 40)
    return UserSequences(
        rng.integers(3, 20, lengths.sum()).astype("int32"), np.append(0, np.cumsum(lengths))
    )


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_every_step_has_a_batch_of_each_and_shorter_sets_begin_again(sequences):
    def parts():
        return {
            "middle": next_batches(sequences, batch_size=3, max_length=8, row_length=16),
            "long": next_batches(sequences, batch_size=1, max_length=8, row_length=16, seed=1),
            "short": next_batches(sequences, batch_size=8, max_length=8, row_length=16, seed=2),
        }

    batches, alone = JointBatches(parts()), parts()
    assert len(alone["short"]) < len(batches) == len(alone["middle"]) < len(alone["long"])
    for epoch in range(2):
        for one in alone.values():
            one.set_epoch(epoch)
        for index in range(len(batches)):
            inputs, targets = batches[index]
            assert inputs.keys() == targets.keys() == alone.keys()
            for name, one in alone.items():
                expected, wanted = one[index % len(one)]
                same(inputs[name], expected)
                np.testing.assert_array_equal(targets[name], wanted)
        batches.on_epoch_end()


def test_weights_are_handed_on_where_there_are_any(sequences):
    sessions = Sessions(sequences, np.arange(40) // 2)
    batches = JointBatches(
        {"next": next_batches(sequences), "session": next_session_batches(sessions)}
    )
    inputs, targets, weights = batches[0]
    assert set(inputs) == set(targets) == {"next", "session"}
    assert set(weights) == {"session"}
    assert weights["session"].shape == targets["session"].shape


def test_a_batch_that_is_not_there_and_no_batches_at_all_are_told(sequences):
    batches = JointBatches({"next": next_batches(sequences)})
    with pytest.raises(IndexError, match=f"batch {len(batches)} of {len(batches)}"):
        batches[len(batches)]
    with pytest.raises(ValueError, match="needs data sets"):
        JointBatches({})
