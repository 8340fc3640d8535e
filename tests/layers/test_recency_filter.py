import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import RecencyFilter


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")


def test_recency_filter_is_a_sound_keras_layer(x):
    run_layer_test(RecencyFilter, {"num_rates": 2}, x, output_shape=(2, 5, 8))


def test_the_slow_course_is_a_mean_of_falling_weights(x):
    layer = RecencyFilter(num_rates=2)
    causal = np.where(np.tri(5), 0.0, -1e4)[None, None].astype("float32")
    output = ops.convert_to_numpy(layer(x, causal))
    beta = ops.convert_to_numpy(layer.beta)
    expected = np.empty_like(x)
    for row, place, feature in np.ndindex(*x.shape):
        rate = [1 / 2, 1 / 4][feature // 4]
        weights = np.exp(-rate * (place - np.arange(place + 1)))
        low = weights @ x[row, : place + 1, feature] / weights.sum()
        expected[row, place, feature] = low + beta[feature] ** 2 * (x[row, place, feature] - low)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_distances_are_those_of_the_positions(x):
    layer = RecencyFilter(num_rates=4)
    layer(x)
    apart = ops.convert_to_numpy(layer(x, None, np.array([[9, 7, 6, 2, 0]] * 2)))
    # Three of the places that lie between hold what a mask hides.
    places = [0, 2, 3, 7, 9]
    wide = np.zeros((2, 10, 8), "float32")
    wide[:, places] = x
    hidden = np.full((1, 1, 1, 10), -1e4, "float32")
    hidden[..., places] = 0
    spread = ops.convert_to_numpy(layer(wide, hidden))[:, places]
    np.testing.assert_allclose(apart, spread, atol=1e-5)


def test_a_width_that_the_rates_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"got 3 rates for a width of 8"):
        RecencyFilter(num_rates=3)(keras.ops.ones((1, 2, 8)))
