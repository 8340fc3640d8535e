import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import FeedForward, GatedResidual, TransformerBlock


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")


@pytest.mark.parametrize("activation", ["gelu", "relu", "swiglu"])
def test_feed_forward_is_a_sound_keras_layer(activation, x):
    options = {"hid_dim": 12, "activation": activation}
    run_layer_test(FeedForward, options, x, output_shape=(3, 5, 8))


def test_swiglu_gates_one_half_of_its_columns_by_the_other(x):
    layer = FeedForward(12, activation="swiglu")
    output = ops.convert_to_numpy(layer(x))
    kernel, bias, kernel_out, bias_out = layer.get_weights()
    gate, value = np.split(x @ kernel + bias, 2, axis=-1)
    expected = (gate / (1 + np.exp(-gate)) * value) @ kernel_out + bias_out
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_an_unknown_activation_or_block_is_refused():
    with pytest.raises(ValueError, match=r"activation must be one of.*'tanh'"):
        FeedForward(activation="tanh")
    with pytest.raises(ValueError, match=r"block must be one of.*'sandwich'"):
        TransformerBlock(2, block="sandwich")
    with pytest.raises(ValueError, match=r"filter_share must lie in 0\.\.1, got 7"):
        TransformerBlock(2, filter_share=7)


def test_gated_residual_is_a_sound_keras_layer(x):
    run_layer_test(GatedResidual, {}, (x, x[::-1].copy()), output_shape=(3, 5, 8))


def test_the_gate_is_a_sigmoid_of_the_residual_stream(x):
    layer = GatedResidual()
    y = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    output = ops.convert_to_numpy(layer(x, y))
    kernel, bias = layer.get_weights()
    expected = x + y / (1 + np.exp(-(x @ kernel + bias)))
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("filter_share", [0.0, 0.7])
@pytest.mark.parametrize("block", ["pre_norm", "post_norm", "gated"])
def test_transformer_block_is_a_sound_keras_layer(block, filter_share, x):
    options = {"num_heads": 2, "hid_dim": 12, "block": block, "filter_share": filter_share}
    run_layer_test(TransformerBlock, options, x, output_shape=(3, 5, 8))
