import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.training.update_order import keep_update_order


class Shift(keras.layers.Layer):
    def build(self, shape):
        self.shift = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, x):
        return x + self.shift


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of TensorFlow")
def test_a_step_computes_all_gradients_from_the_weights_it_began_with():
    keep_update_order()
    rows = np.tile(np.array([[[1, -1, 1, -1], [1, 1, -1, -1]]], "float32"), (1000, 1, 1))
    factors = np.array([1.0, 2.0, 3.0, 6.0], "float32")
    moved = []
    # Without the call some of thirty models go wrong, nearly always.
    for _ in range(30):
        inputs, shift = keras.Input((2, 4)), Shift()
        model = keras.Model(inputs, keras.layers.LayerNormalization()(shift(inputs)))
        model.compile(keras.optimizers.SGD(1.0), lambda _, y: ops.sum(y * factors, (1, 2)))
        # The loss is a mean over rows, here made a sum.
        model.train_on_batch(rows, rows, sample_weight=np.full(1000, 1000))
        moved.append(ops.convert_to_numpy(shift.shift)[0])
    expected = np.tile([1000.0, 2000.0, -1000.0, -2000.0], (30, 1))
    np.testing.assert_allclose(moved, expected, rtol=0.01)
