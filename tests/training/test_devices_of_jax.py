"""Training on several devices by `keras.distribution`, which works on JAX."""

import keras
import numpy as np
import pytest

import tfrec_llm as tr
from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel


def several_devices():
    return keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) > 1


pytestmark = pytest.mark.skipif(not several_devices(), reason="JAX has no second device")


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 20)
    items = rng.integers(3, 20, lengths.sum()).astype("int32")
    return tr.data.UserSequences(items, np.append(0, np.cumsum(lengths)))


def trained(strategy, batches):
    keras.utils.set_random_seed(0)
    batches.set_epoch(0)
    with tr.training.distribution_scope(strategy):
        encoder = BehaviorEncoder(20, 8, num_layers=1, max_length=8, dropout=0.0)
        model = NextBehaviorModel(encoder)
        model.compile(keras.optimizers.Adam(0.01, epsilon=1e-5, clipnorm=0.1))
        model.fit(batches, verbose=0)
    return model


def test_two_devices_of_jax_end_with_the_weights_of_one(sequences):
    # Some have an odd number of rows.
    batches = tr.data.next_batches(sequences, batch_size=3)
    one = trained("none", batches)
    for strategy, rows_a_device in (("data_parallel", 20), ("model_parallel", 10)):
        two = trained(strategy, batches)
        for expected, found in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
        rows = {shard.data.shape[0] for shard in two.table.value.addressable_shards}
        assert rows == {rows_a_device}
