"""Multi-head self-attention over packed histories."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.projection import projection
from tfrec_llm.layers.rotation import rotate


@keras.saving.register_keras_serializable(package="tfrec_llm")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention with an additive mask and optional rotary positions.

    One matrix product gives queries, keys and values of all heads. The mask is
    made once for a whole stack of blocks, by `TransformerEncoder`.

    Args:
        num_heads: Number of heads; divides the width of the input.
        dropout: Share of attention weights dropped in training.
        rotary: Whether queries and keys are turned by their position.
        kernel_initializer: Initializer of both kernels.

    Call arguments:
        x: Float tensor `[rows, length, emb_dim]`.
        attention_mask: Float tensor that broadcasts to `[rows, num_heads, length,
            length]`: 0 where a query may look, strongly negative elsewhere.
        positions: Integer tensor `[rows, length]`, needed when `rotary`.

    Returns:
        Float tensor `[rows, length, emb_dim]`.

    Raises:
        ValueError: If `num_heads` does not divide the width of the input.

    Example:
        >>> tuple(SelfAttention(num_heads=2)(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 8)

    Reference:
        Attention Is All You Need, https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        num_heads: int,
        *,
        dropout: float = 0.0,
        rotary: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout
        self.rotary = rotary
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        width = x_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width of the input, got {self.num_heads} heads "
                f"for a width of {width}."
            )
        self.head_dim = width // self.num_heads
        if self.rotary and self.head_dim % 2:
            raise ValueError(
                f"Rotary positions need an even width a head, got {self.head_dim}. "
                "Change emb_dim or num_heads."
            )
        self.project_in = projection(self, 3 * width, "project_in")
        self.project_in.build(x_shape)
        self.project_out = projection(self, width, "project_out")
        self.project_out.build(x_shape)
        self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop")
        super().build(x_shape)

    def call(self, x, attention_mask=None, positions=None, training=None):
        _, length, width = x.shape
        length = ops.shape(x)[1] if length is None else length
        heads = ops.reshape(self.project_in(x), (-1, length, 3, self.num_heads, self.head_dim))
        query, key, value = ops.unstack(ops.transpose(heads, (2, 0, 3, 1, 4)), 3)
        if self.rotary:
            query, key = rotate(query, positions), rotate(key, positions)
        query = query * ops.cast(self.head_dim**-0.5, query.dtype)
        logits = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        if attention_mask is not None:
            logits = logits + ops.cast(attention_mask, logits.dtype)
        weights = self.drop(ops.softmax(logits, axis=-1), training=training)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return self.project_out(ops.reshape(mixed, (-1, length, width)))

    def compute_output_shape(self, x_shape, *args, **kwargs):
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "rotary": self.rotary,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
