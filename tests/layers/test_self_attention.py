import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import SelfAttention


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")


def test_self_attention_is_a_sound_keras_layer(x):
    run_layer_test(SelfAttention, {"num_heads": 2}, x, output_shape=(3, 5, 8))


def test_rotary_self_attention_is_a_sound_keras_layer(x):
    mask = np.zeros((3, 1, 5, 5), "float32")
    mask[0, :, :, 3:] = -1e4
    positions = np.tile(np.arange(5, dtype="int32"), (3, 1))
    options = {"num_heads": 2, "rotary": True}
    run_layer_test(SelfAttention, options, (x, mask, positions), output_shape=(3, 5, 8))


def test_attention_follows_the_formula(x):
    layer = SelfAttention(num_heads=2)
    output = ops.convert_to_numpy(layer(x))
    kernel, bias, kernel_out, bias_out = layer.get_weights()
    # Three blocks of columns, one for each of query, key and value, a head beside a head.
    query, key, value = np.split(x @ kernel + bias, 3, axis=-1)
    heads = []
    for columns in (slice(0, 4), slice(4, 8)):
        logits = query[..., columns] @ key[..., columns].transpose(0, 2, 1) / 2.0
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        heads.append(weights @ value[..., columns])
    expected = np.concatenate(heads, axis=-1) @ kernel_out + bias_out
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_rotary_attention_depends_on_distances_of_positions_only(x):
    layer = SelfAttention(num_heads=2, rotary=True)
    positions = np.tile(np.array([4, 3, 2, 1, 0], "int32"), (3, 1))
    near = ops.convert_to_numpy(layer(x, positions=positions))
    far = ops.convert_to_numpy(layer(x, positions=positions + 70))
    turned = ops.convert_to_numpy(layer(x, positions=positions[:, ::-1]))
    np.testing.assert_allclose(near, far, atol=1e-4)
    assert np.abs(near - turned).max() > 1e-3


def test_widths_that_do_not_fit_the_heads_are_refused(x):
    with pytest.raises(ValueError, match="num_heads must divide the width of the input, got 3"):
        SelfAttention(num_heads=3)(x)
    with pytest.raises(ValueError, match="even width a head, got 1"):
        SelfAttention(num_heads=8, rotary=True)(x)
