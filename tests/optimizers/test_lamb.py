import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.optimizers import Lamb

GRADIENTS = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")


def stepped(optimizer, start, spared=False):
    weight = keras.Variable(np.asarray(start, "float32"))
    if spared:
        optimizer.exclude_from_weight_decay(var_list=[weight])
    for gradient in GRADIENTS:
        optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
    return ops.convert_to_numpy(weight)


def test_without_weight_decay_it_is_that_of_keras():
    start = np.random.default_rng(1).normal(size=(4, 3))
    expected = stepped(keras.optimizers.Lamb(0.05, epsilon=1e-6), start)
    np.testing.assert_allclose(stepped(Lamb(0.05), start), expected, rtol=1e-5, atol=1e-6)


def test_a_weight_of_zeros_starts_to_move():
    assert (stepped(Lamb(0.05), np.zeros((4, 3))) != 0).all()


def test_a_weight_can_be_spared_from_the_decay():
    start = np.ones((4, 3))
    spared = stepped(Lamb(0.05, weight_decay=0.5), start, spared=True)
    np.testing.assert_allclose(spared, stepped(Lamb(0.05), start), rtol=1e-6)
    assert (stepped(Lamb(0.05, weight_decay=0.5), start) != spared).any()


def test_keras_still_decays_outside_the_scaled_step():
    """Where this fails, Keras' Lamb follows the paper and this class can go."""
    start = np.ones((4, 3))
    theirs = stepped(keras.optimizers.Lamb(0.05, epsilon=1e-6, weight_decay=0.1), start)
    assert np.abs(theirs - stepped(Lamb(0.05, weight_decay=0.1), start)).max() > 1e-3


def test_the_configuration_makes_the_round_trip():
    optimizer = Lamb(0.02, beta_1=0.8, beta_2=0.99, weight_decay=0.1, name="large_batches")
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, Lamb)
    assert again.get_config() == optimizer.get_config()
    assert again.weight_decay == pytest.approx(0.1)
