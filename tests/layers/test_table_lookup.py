import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.layers import ItemEmbedding, UserEmbedding


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
@pytest.mark.parametrize("layer_class", [ItemEmbedding, UserEmbedding])
def test_a_row_read_many_times_steps_as_the_sum_of_its_gradients(layer_class, optimizer):
    def steps(read):
        """Two steps on the gradient of the sum of what is read."""
        inputs = keras.Input((4,), dtype="int32")
        model = keras.Model(inputs, read(inputs))
        model.compile(optimizer, loss=lambda _, outputs: ops.sum(outputs))
        before = model.get_weights()[0]
        for ids in ([1, 1, 1, 1], [1, 1, 2, 2]):
            model.train_on_batch(np.array([ids]), np.zeros((1, 4, 2)))
        return model.get_weights()[0] - before

    keras.utils.set_random_seed(0)
    looked_up = steps(layer_class(5, 2))
    one_hot = keras.layers.Dense(2, use_bias=False)
    dense = steps(lambda ids: one_hot(ops.one_hot(ids, 5)))
    np.testing.assert_allclose(looked_up, dense, atol=1e-6)
