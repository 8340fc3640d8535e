import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import MixtureOfExperts


def test_mixture_of_experts_is_a_sound_keras_layer():
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32")
    options = {"num_tasks": 2, "num_experts": 3, "hid_dim": 6}
    run_layer_test(MixtureOfExperts, options, x, output_shape=(4, 3, 2, 6))


def test_every_task_has_a_mixture_of_its_own():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    layer = MixtureOfExperts(num_tasks=2, num_experts=3, hid_dim=6)
    output = ops.convert_to_numpy(layer(x))
    kernel, bias, gate_kernel, gate_bias = layer.get_weights()
    experts = np.maximum(x @ kernel + bias, 0).reshape(4, 3, 6)
    gates = np.exp((x @ gate_kernel + gate_bias).reshape(4, 2, 3))
    gates /= gates.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(output, np.einsum("nte,neh->nth", gates, experts), atol=1e-5)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="got 2, 0 and 64"):
        MixtureOfExperts(num_tasks=2, num_experts=0)
