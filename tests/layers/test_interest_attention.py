import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import InterestAttention


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(2, 3, 4)).astype("float32")
    behaviors = rng.normal(size=(2, 5, 4)).astype("float32")
    mask = rng.random((2, 3, 5)) < 0.6
    mask[0, 0] = False
    mask[1, 1, 0] = True
    return candidates, behaviors, mask, (rng.random((2, 3, 5)) < 0.4).astype("float32")


@pytest.mark.parametrize("normalize", [False, True])
def test_interest_attention_is_a_sound_keras_layer(normalize, pair):
    options = {"hid_dim": 8, "normalize": normalize}
    run_layer_test(InterestAttention, options, pair, output_shape=(2, 3, 4))


def test_the_sum_follows_the_formula(pair):
    candidates, behaviors, mask, same = pair
    layer = InterestAttention(hid_dim=8)
    output = ops.convert_to_numpy(layer(*pair))
    of_same, of_candidate, bias, of_behavior, of_product, vector, offset = layer.get_weights()
    for row, target in np.ndindex(2, 3):
        expected = np.zeros(4)
        for place in np.flatnonzero(mask[row, target]):
            g, e = candidates[row, target], behaviors[row, place]
            hidden = g @ of_candidate + e @ of_behavior + (g * e) @ of_product + bias
            hidden = hidden + same[row, target, place] * of_same
            hidden = hidden / (1 + np.exp(-hidden))
            expected += (hidden @ vector + offset) * e
        np.testing.assert_allclose(output[row, target], expected, atol=1e-5)


def test_a_candidate_that_may_look_at_nothing_gets_zeros(pair):
    for normalize in (False, True):
        output = ops.convert_to_numpy(InterestAttention(8, normalize=normalize)(*pair))
        assert (output[0, 0] == 0).all()
        assert (output[1, 1] != 0).any()
