"""What the layers that give items' vectors share."""

from typing import Any

import keras
from keras import ops


class ItemTable(keras.layers.Layer):
    """Template of layers that look vectors up by index.

    A subclass sets `vocab_size` and `emb_dim` and writes `rows`.

    Attributes:
        seen: Float tensor `[vocab_size, 1]`, 1 where training has seen an
            index and 0 where it is known by its features alone. None where
            that is not told apart.

    Call arguments:
        items: Integer tensor of any shape.

    Returns:
        Float tensor of the shape of `items` with `emb_dim` behind it.
    """

    vocab_size: int
    emb_dim: int
    seen: Any = None

    def rows(self, items, *, training: bool | None = False):
        """Returns the float32 vectors of items.

        Args:
            items: int32 or int64 tensor of any shape.
            training: Whether what is dropped in training is dropped.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rows.")

    def all_rows(self, *, training: bool | None = False):
        """Returns all vectors, float32 `[vocab_size, emb_dim]`.

        Args:
            training: As of `rows`.
        """
        return self.rows(ops.arange(self.vocab_size), training=training)

    def call(self, items, training=None):
        if keras.backend.standardize_dtype(items.dtype) not in ("int32", "int64"):
            items = ops.cast(items, "int32")
        return ops.cast(self.rows(items, training=training), self.compute_dtype)

    def compute_output_shape(self, items_shape):
        return (*items_shape, self.emb_dim)

    def compute_output_spec(self, items, training=None):
        return keras.KerasTensor((*items.shape, self.emb_dim), dtype=self.compute_dtype)
