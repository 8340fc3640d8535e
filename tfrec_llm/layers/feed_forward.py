"""Position-wise feed-forward sublayer."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.projection import projection

ACTIVATIONS = ("gelu", "relu", "swiglu")


@keras.saving.register_keras_serializable(package="tfrec_llm")
class FeedForward(keras.layers.Layer):
    """Two dense maps with an activation between: `W2 act(W1 x)`, or SwiGLU.

    Args:
        hid_dim: Width between the two maps. None stands for four times the
            width of the input.
        activation: `"gelu"`, `"relu"` or `"swiglu"`, which is
            `W2 (silu(W1 x) * V x)` and holds half as many weights again.
        kernel_initializer: Initializer of all kernels.

    Call arguments:
        x: Float tensor `[..., emb_dim]`.

    Returns:
        Float tensor of the same shape.

    Raises:
        ValueError: If `activation` is none of the three.

    Example:
        >>> tuple(FeedForward(16, activation="swiglu")(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 8)

    Reference:
        GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202
    """

    def __init__(
        self,
        hid_dim: int | None = None,
        *,
        activation: str = "gelu",
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}.")
        self.hid_dim = hid_dim
        self.activation = activation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        width = self.hid_dim or 4 * x_shape[-1]
        inner = 2 * width if self.activation == "swiglu" else width
        self.expand = projection(self, inner, "expand")
        self.contract = projection(self, x_shape[-1], "contract")
        self.expand.build(x_shape)
        self.contract.build((*x_shape[:-1], width))
        super().build(x_shape)

    def call(self, x):
        hidden = self.expand(x)
        if self.activation == "swiglu":
            gate, value = ops.split(hidden, 2, axis=-1)
            hidden = ops.silu(gate) * value
        elif self.activation == "gelu":
            hidden = ops.gelu(hidden, approximate=True)
        else:
            hidden = ops.relu(hidden)
        return self.contract(hidden)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "hid_dim": self.hid_dim,
            "activation": self.activation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
