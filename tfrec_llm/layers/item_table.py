"""What the layers that give items' vectors share."""

import keras
from keras import ops


class ItemTable(keras.layers.Layer):
    """Template of layers that look vectors up by index.

    A subclass sets `emb_dim` and writes `rows`.

    Call arguments:
        items: Integer tensor of any shape.

    Returns:
        Float tensor of the shape of `items` with `emb_dim` behind it.
    """

    emb_dim: int

    def rows(self, items):
        """Returns the float32 vectors of items, int32 or int64 of any shape."""
        raise NotImplementedError(f"{type(self).__name__} must define rows.")

    def call(self, items):
        if keras.backend.standardize_dtype(items.dtype) not in ("int32", "int64"):
            items = ops.cast(items, "int32")
        return ops.cast(self.rows(items), self.compute_dtype)

    def compute_output_shape(self, items_shape):
        return (*items_shape, self.emb_dim)

    def compute_output_spec(self, items):
        return keras.KerasTensor((*items.shape, self.emb_dim), dtype=self.compute_dtype)
