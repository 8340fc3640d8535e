"""Does this session follow that one?"""

import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import Sessions, UserSequences, next_session_batches
from tfrec_llm.data.vocabulary import MASK
from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel, NextSessionModel

SMALL = {"vocab_size": 20, "emb_dim": 8, "num_layers": 1, "max_length": 16, "dropout": 0.0}


def sessions(num_users=60, seed=0):
    """Visits of people who each like four neighbouring items."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), 3)
    lengths = rng.integers(2, 5, len(users))
    taste = np.repeat(users % 4, lengths)
    items = 3 + 4 * taste + rng.integers(0, 4, len(taste))
    return Sessions(UserSequences(items.astype("int32"), np.append(0, np.cumsum(lengths))), users)


@pytest.mark.parametrize("causal", [True, False])
def test_next_session_model_is_a_sound_keras_model(causal):
    batches = next_session_batches(sessions(), batch_size=100)
    inputs, labels, _ = batches[0]
    run_layer_test(
        NextSessionModel,
        {"encoder": BehaviorEncoder(**SMALL, causal=causal), "hid_dim": 6},
        inputs,
        output_shape=labels.shape,
        mixed_dtype="float32",
        training_batch=(inputs, labels),
    )


def test_what_follows_is_told_from_what_does_not():
    keras.utils.set_random_seed(0)
    model = NextSessionModel(BehaviorEncoder(**SMALL | {"emb_dim": 16, "input_norm": True}))
    model.compile(keras.optimizers.Adam(0.003))
    held_out = next_session_batches(sessions(seed=1))
    before = model.evaluate(held_out, verbose=0, return_dict=True)
    assert 0.3 < before["auc"] < 0.7
    model.fit(next_session_batches(sessions(400), batch_size=4), epochs=12, verbose=0)
    after = model.evaluate(held_out, verbose=0, return_dict=True)
    # A quarter of the others have the same taste, so .875 is all there is to know.
    assert 0.8 < after["auc"] < 0.95
    assert after["loss"] < before["loss"]


def test_places_without_a_pair_change_neither_loss_nor_auc():
    model = NextSessionModel(BehaviorEncoder(**SMALL))
    model.compile(keras.optimizers.SGD(0.0))
    inputs, labels, weights = next_session_batches(sessions(), batch_size=100)[0]
    assert 0 < weights.sum() < weights.size
    found = ops.convert_to_numpy(model(inputs))[weights > 0]
    true = labels[weights > 0]
    expected = -np.mean(true * np.log(found) + (1 - true) * np.log(1 - found))
    result = model.evaluate(inputs, labels, sample_weight=weights, batch_size=100, verbose=0)
    assert result[0] == pytest.approx(expected, rel=1e-4)
    wins = found[true == 1][:, None] > found[true == 0][None]
    assert result[1] == pytest.approx(wins.mean(), abs=0.02)


def test_packed_pairs_get_the_probabilities_they_get_alone():
    model = NextSessionModel(BehaviorEncoder(**SMALL))
    inputs, _, weights = next_session_batches(sessions(), batch_size=100)[0]
    packed = ops.convert_to_numpy(model(inputs))
    row = 0
    for pair in range(int(weights[row].sum())):
        inside = inputs["segments"][row] == pair + 1
        alone = {
            name: inputs[name][row][inside][None] for name in ("items", "segments", "positions")
        }
        alone["segments"] = np.ones_like(alone["segments"])
        assert (alone["items"] == MASK).sum() == 1
        np.testing.assert_allclose(
            packed[row, pair], ops.convert_to_numpy(model(alone))[0, 0], atol=1e-6
        )


def test_an_undecided_encoder_goes_on_to_next_behavior():
    encoder = BehaviorEncoder(**SMALL)
    NextSessionModel(encoder)
    assert encoder.causal is None
    NextBehaviorModel(encoder)
    assert encoder.causal is True


def test_metrics_of_ones_own_take_the_place_of_auc():
    model = NextSessionModel(BehaviorEncoder(**SMALL))
    model.compile(weighted_metrics=[keras.metrics.BinaryAccuracy(name="hits")])
    batches = next_session_batches(sessions())
    assert set(model.evaluate(batches, verbose=0, return_dict=True)) == {"loss", "hits"}
