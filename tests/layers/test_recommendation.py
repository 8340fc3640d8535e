import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import Recommendation


@pytest.mark.parametrize("options", [{}, {"product": True}, {"product": True, "num_crosses": 2}])
def test_recommendation_is_a_sound_keras_layer(options):
    rng = np.random.default_rng(0)
    pair = (rng.normal(size=(6, 8)).astype("float32"), rng.normal(size=(6, 8)).astype("float32"))
    run_layer_test(
        Recommendation,
        {"emb_dim": 8, "hid_dim": 16, **options},
        pair,
        output_shape=(6, 1),
        mixed_dtype="float32",
    )


def test_the_probability_follows_the_formula():
    rng = np.random.default_rng(1)
    h_u, g_i = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    head = Recommendation(emb_dim=8, hid_dim=3)
    output = head(ops.cast(h_u, "float32"), ops.cast(g_i, "float32"))
    kernel, bias, vector, offset = head.get_weights()
    hidden = np.maximum(np.concatenate([h_u, g_i], axis=-1) @ kernel + bias, 0)
    expected = 1 / (1 + np.exp(-(hidden @ vector + offset)))
    np.testing.assert_allclose(ops.convert_to_numpy(output), expected, atol=1e-6)


def test_inputs_of_another_width_are_refused_by_name():
    with pytest.raises(ValueError, match=r"g_i must be 8 wide.*\(2, 4\)"):
        Recommendation(8, 16)(ops.ones((2, 8)), ops.ones((2, 4)))
    with pytest.raises(ValueError, match=r"h_u must be 8 wide.*\(2, 4\)"):
        Recommendation(8, 16)(ops.ones((2, 4)), ops.ones((2, 8)))
    with pytest.raises(ValueError, match="must be positive"):
        Recommendation(8, 0)
