"""Sigmoid-gated residual connection."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfrec_llm")
class GatedResidual(keras.layers.Layer):
    """Adds a sublayer's output through a learned gate: `x + sigmoid(W x) * y`.

    The gate lets deep stacks start near the identity, which keeps eight and
    more blocks trainable where plain residuals diverge.

    Args:
        kernel_initializer: Initializer of the gate's kernel. Defaults to
            `"glorot_uniform"`.

    Call arguments:
        x: Float tensor `[..., emb_dim]`, the residual stream.
        y: Float tensor of the same shape, the sublayer's output.

    Returns:
        Float tensor of the same shape.

    Example:
        >>> gate = GatedResidual()
        >>> tuple(gate(keras.ops.ones((2, 5, 8)), keras.ops.zeros((2, 5, 8))).shape)
        (2, 5, 8)

    Reference:
        LiGR, https://arxiv.org/abs/2502.03417
    """

    def __init__(self, kernel_initializer: Any = "glorot_uniform", **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape, y_shape=None):
        self.gate = keras.layers.Dense(
            x_shape[-1],
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="gate",
        )
        self.gate.build(x_shape)
        super().build(x_shape)

    def call(self, x, y):
        return x + ops.sigmoid(self.gate(x)) * y

    def compute_output_shape(self, x_shape, y_shape=None):
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
