import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from tfrec_llm.layers import ItemEmbedding
from tfrec_llm.losses.table_rows import table_rows


def test_the_gradient_sums_what_a_row_is_used_for():
    table = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    indexes = np.array([[1, 1, 4], [4, 1, 0]])
    factors = np.arange(18, dtype="float32").reshape(2, 3, 3)
    value, (gradient,) = value_and_gradients(
        lambda table: ops.sum(table_rows(table, ops.convert_to_tensor(indexes)) * factors), table
    )
    expected = np.zeros_like(table)
    np.add.at(expected, indexes, factors)
    np.testing.assert_allclose(gradient, expected)
    assert value == pytest.approx((table[indexes] * factors).sum(), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["Adam", "Adagrad", "RMSprop"])
def test_an_item_used_twice_in_a_batch_steps_as_in_one_use_of_twice_the_weight(optimizer):
    def steps(batches, factor):
        layer = ItemEmbedding(5, 2, embeddings_initializer="zeros")
        items = keras.Input((None,), dtype="int32")
        model = keras.Model(items, layer(items))
        rate = getattr(keras.optimizers, optimizer)(0.1)
        model.compile(rate, lambda y_true, y_pred: factor * ops.sum(y_pred, axis=(1, 2)))
        for batch in batches:
            model.train_on_batch(np.array([batch]), np.zeros((1, len(batch), 2)))
        return ops.convert_to_numpy(layer.table)

    np.testing.assert_allclose(
        steps([[1, 1], [1, 1], [2, 2]], 1.0), steps([[1], [1], [2]], 2.0), rtol=1e-5
    )


def test_gradients_add_up_in_float32_where_layers_compute_in_bfloat16():
    layer = ItemEmbedding(4, 2, embeddings_initializer="zeros", dtype="mixed_bfloat16")
    items = keras.Input((None,), dtype="int32")
    model = keras.Model(items, layer(items))
    model.compile(keras.optimizers.SGD(1.0), lambda y, p: ops.sum(ops.cast(p, "float32"), (1, 2)))
    # In bfloat16 a sum of ones stops at 256.
    model.train_on_batch(np.full((1, 1000), 2), np.zeros((1, 1000, 2)))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.table)[2], [-1000, -1000])
