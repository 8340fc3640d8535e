"""Vectors of items by their index."""

from typing import Any

import keras

from tfrec_llm.layers.item_table import ItemTable
from tfrec_llm.losses.table_rows import RowTable, sparse_row_gradients_active, table_rows


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ItemEmbedding(ItemTable):
    """A trained vector for each item: `g_i = E[i]`.

    Args:
        vocab_size: Number of indexes, the reserved ones included.
        emb_dim: Width of a vector.
        embeddings_initializer: Initializer of the table.

    Call arguments:
        items: Integer tensor of any shape, `0 <= items < vocab_size`.

    Returns:
        Float tensor of the shape of `items` with `emb_dim` behind it.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> item_embedding = ItemEmbedding(vocab_size=100, emb_dim=8)
        >>> tuple(item_embedding(keras.ops.array([[3, 4, 5]])).shape)
        (1, 3, 8)
    """

    def __init__(
        self,
        vocab_size: int,
        emb_dim: int,
        *,
        embeddings_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if vocab_size < 1 or emb_dim < 1:
            raise ValueError(
                f"vocab_size and emb_dim must be positive, got {vocab_size} and {emb_dim}."
            )
        self.vocab_size = vocab_size
        self.emb_dim = emb_dim
        self.embeddings_initializer = keras.initializers.get(
            embeddings_initializer or keras.initializers.TruncatedNormal(stddev=0.02)
        )

    def build(self, items_shape=None):
        self.table = self.add_weight(
            shape=(self.vocab_size, self.emb_dim),
            initializer=self.embeddings_initializer,
            # Rows are cast when they are taken, so that gradients add up in float32.
            autocast=False,
            name="table",
        )
        super().build(items_shape)

    def rows(self, items):
        table = RowTable(self.table) if sparse_row_gradients_active() else self.table
        return table_rows(table, items)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocab_size": self.vocab_size,
            "emb_dim": self.emb_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }
