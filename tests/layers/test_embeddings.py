import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.layers import ItemEmbedding, UserEmbedding


@pytest.mark.parametrize("layer_class", [UserEmbedding, ItemEmbedding])
def test_embeddings_are_sound_keras_layers(layer_class):
    items = np.array([[3, 4, 5], [5, 0, 9]], np.int32)
    run_layer_test(layer_class, {"vocab_size": 10, "emb_dim": 4}, items, output_shape=(2, 3, 4))


@pytest.mark.parametrize("layer_class", [UserEmbedding, ItemEmbedding])
def test_an_index_gives_its_row_of_the_table_whatever_its_integer_type(layer_class):
    layer = layer_class(10, 4)
    for dtype in ("int32", "int64", "uint8"):
        rows = layer(ops.convert_to_tensor(np.array([[7], [2]], dtype)))
        table = ops.convert_to_numpy(layer.table)
        np.testing.assert_array_equal(ops.convert_to_numpy(rows)[:, 0], table[[7, 2]])


@pytest.mark.parametrize("sizes", [(0, 4), (10, 0), (-1, 4)])
def test_sizes_that_are_not_positive_are_refused(sizes):
    with pytest.raises(ValueError, match="must be positive"):
        ItemEmbedding(*sizes)
