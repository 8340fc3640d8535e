"""A filter along a history that needs no content."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="tfrec_llm")
class RecencyFilter(keras.layers.Layer):
    """Parts a history into its slow course and the rest: `low + beta^2 (x - low)`.

    `low` is a mean over what a place may see, of weights that fall with the
    distance as `exp(-rate * distance)`. Each group of features has a trained
    rate of its own, at first 1/2, 1/4, 1/8 and so on; beta is trained for
    each feature. Attention has to learn that near behaviours matter and is
    prone to blur a history; the filter knows the first from the start and
    keeps the quick changes apart. It is the frequency filter of BSARec as a
    sum over the past, which a causal model can use at all places at once.

    Args:
        num_rates: Number of groups of features; divides their number.

    Call arguments:
        x: Float tensor `[rows, length, emb_dim]`.
        attention_mask: See `SelfAttention`, of one head.
        positions: Integer tensor `[rows, length]`, whose differences are the
            distances; None for the places themselves.

    Returns:
        Float tensor `[rows, length, emb_dim]`.

    Raises:
        ValueError: If `num_rates` does not divide the width of the input.

    Example:
        >>> tuple(RecencyFilter(num_rates=2)(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 8)

    Reference:
        BSARec, https://arxiv.org/abs/2312.10325
    """

    def __init__(self, num_rates: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_rates = num_rates

    def build(self, x_shape):
        width = x_shape[-1]
        if self.num_rates < 1 or width % self.num_rates:
            raise ValueError(
                f"num_rates must divide the width of the input, got {self.num_rates} rates for a "
                f"width of {width}."
            )
        self.log_rate = self.add_weight(
            shape=(self.num_rates,),
            initializer=_halving,
            autocast=False,
            name="log_rate",
        )
        self.beta = self.add_weight(
            shape=(width,),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="beta",
        )
        super().build(x_shape)

    def call(self, x, attention_mask=None, positions=None):
        _, length, width = x.shape
        length = ops.shape(x)[1] if length is None else length
        positions = ops.arange(length)[None] if positions is None else positions
        positions = ops.cast(positions, "float32")
        distance = ops.abs(positions[:, None, :, None] - positions[:, None, None, :])
        logits = -ops.exp(self.log_rate)[:, None, None] * distance
        if attention_mask is not None:
            logits = logits + ops.cast(attention_mask, "float32")
        weights = ops.softmax(logits, axis=-1)
        groups = ops.reshape(x, (-1, length, self.num_rates, width // self.num_rates))
        low = ops.matmul(ops.cast(weights, x.dtype), ops.transpose(groups, (0, 2, 1, 3)))
        low = ops.reshape(ops.transpose(low, (0, 2, 1, 3)), (-1, length, width))
        return low + ops.square(ops.cast(self.beta, x.dtype)) * (x - low)

    def compute_output_shape(self, x_shape, *args, **kwargs):
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_rates": self.num_rates}


def _halving(shape, dtype=None):
    """log(1/2), log(1/4), ..."""
    return ops.convert_to_tensor(-np.log(2.0) * np.arange(1, shape[0] + 1), dtype=dtype)
