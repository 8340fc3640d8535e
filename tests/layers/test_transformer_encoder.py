import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import TransformerBlock, TransformerEncoder
from tfrec_llm.training import keep_update_order

SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]], "int32")
POSITIONS = np.array([[1, 0, 2, 1, 0, 0], [5, 4, 3, 2, 1, 0]], "int32")


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("position_encoding", ["learned", "rotary", "none"])
def test_transformer_encoder_is_a_sound_keras_layer(position_encoding, causal, x):
    options = {
        "num_layers": 1,
        "num_heads": 2,
        "block": "gated" if causal else "pre_norm",
        "position_encoding": position_encoding,
        "max_length": 8,
        "causal": causal,
    }
    run_layer_test(TransformerEncoder, options, (x, SEGMENTS, POSITIONS), output_shape=(2, 6, 8))


def test_vectors_alone_are_one_sequence_a_row_whose_newest_is_last(x):
    encoder = TransformerEncoder(num_layers=1, max_length=8)
    alone = encoder(x)
    said = encoder(x, segments=ops.ones((2, 6), "int32"), positions=np.tile(POSITIONS[1], (2, 1)))
    np.testing.assert_allclose(ops.convert_to_numpy(alone), ops.convert_to_numpy(said), atol=1e-6)


def test_positions_beyond_the_longest_share_the_last_vector(x):
    encoder = TransformerEncoder(num_layers=1, max_length=3)
    clipped = encoder(x, positions=np.minimum(POSITIONS, 2))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(encoder(x, positions=POSITIONS)), ops.convert_to_numpy(clipped)
    )


@pytest.mark.parametrize("position_encoding", ["learned", "rotary"])
def test_order_is_seen_unless_positions_are_none(position_encoding, x):
    turned = x[:, [1, 0, 2, 3, 4, 5]]

    def newest(encoding):
        encoder = TransformerEncoder(
            num_layers=1, position_encoding=encoding, initializer_range=0.5, max_length=8
        )
        return [ops.convert_to_numpy(encoder(rows))[:, -1] for rows in (x, turned)]

    one, other = newest(position_encoding)
    assert np.abs(one - other).max() > 1e-4
    one, other = newest("none")
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_gradients_of_positions_add_up_in_float32():
    keep_update_order()
    encoder = TransformerEncoder(num_layers=0, max_length=2, dtype="mixed_bfloat16")
    vectors = keras.Input((2, 4))
    model = keras.Model(vectors, encoder(vectors))
    factors = np.array([1.0, 2.0, 3.0, 6.0], "float32")
    model.compile(
        keras.optimizers.SGD(1.0),
        lambda y_true, y_pred: ops.sum(ops.cast(y_pred, "float32") * factors, axis=(1, 2)),
    )
    rows = np.tile(np.array([[[1, -1, 1, -1], [-1, 1, -1, 1]]], "float32"), (1000, 1, 1))

    start = [weight.copy() for weight in model.get_weights()]

    def step(number):
        # The normalisation behind the positions trains, too: every step starts from the same.
        model.set_weights(start)
        before = ops.convert_to_numpy(encoder.position_table).copy()
        # The loss is a mean over rows, here made a sum.
        model.train_on_batch(rows[:number], rows[:number], sample_weight=np.full(number, number))
        return ops.convert_to_numpy(encoder.position_table) - before

    # In bfloat16 a sum of equal numbers stops at 256 of them.
    np.testing.assert_allclose(step(1000), 1000 * step(1), rtol=0.02, atol=1)


def test_dropout_acts_in_training_only(x):
    encoder = TransformerEncoder(num_layers=1, dropout=0.5, attention_dropout=0.5)
    inferred = [ops.convert_to_numpy(encoder(x)) for _ in range(2)]
    trained = [ops.convert_to_numpy(encoder(x, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*inferred)
    assert np.abs(trained[0] - trained[1]).max() > 0.1


def test_an_unknown_position_encoding_is_refused():
    with pytest.raises(ValueError, match=r"position_encoding must be one of.*'sinus'"):
        TransformerEncoder(position_encoding="sinus")


@pytest.mark.parametrize(
    ("options", "norms"),
    [
        ({"block": "post_norm"}, (True, False)),
        ({"block": "pre_norm", "input_norm": True}, (True, True)),
        ({"block": "pre_norm"}, (False, True)),
    ],
)
def test_vectors_are_normalised_where_it_is_said(options, norms, x):
    encoder = TransformerEncoder(num_layers=1, num_heads=2, position_encoding="none", **options)
    hidden = ops.convert_to_numpy(encoder(x))
    larger = ops.convert_to_numpy(encoder(10.0 * x))
    # What is normalised first does not depend on the scale of what comes in.
    assert np.allclose(hidden, larger, atol=1e-4) == norms[0]
    np.testing.assert_allclose(hidden.mean(axis=-1), 0.0, atol=1e-5)
    weights = {weight.path.split("/")[-2] for weight in encoder.weights}
    assert ("first_norm" in weights, "norm" in weights) == norms


def test_post_norm_is_the_plain_formula(x):
    block = TransformerBlock(2, block="post_norm")
    block(x)
    expected = block.attention_norm(x + block.attention(x))
    expected = block.feed_forward_norm(expected + block.feed_forward(expected))
    np.testing.assert_allclose(
        ops.convert_to_numpy(block(x)), ops.convert_to_numpy(expected), atol=1e-6
    )
