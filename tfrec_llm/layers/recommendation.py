"""The head that turns a user and an item into a probability."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfrec_llm")
class Recommendation(keras.layers.Layer):
    """Probability that a user takes an item: `p = sigmoid(w^T relu(W [h_u ; g_i]))`.

    The output is a probability. Give it to `BinaryCrossentropy()` as it is,
    never with `from_logits=True`.

    Args:
        emb_dim: Width of `h_u` and of `g_i`.
        hid_dim: Width of the hidden layer.

    Call arguments:
        h_u: Float tensor `[..., emb_dim]`, the users.
        g_i: Float tensor `[..., emb_dim]`, the items.

    Returns:
        float32 tensor `[..., 1]` in 0..1.

    Raises:
        ValueError: If a size is not positive or an input has another width.

    Example:
        >>> head = Recommendation(emb_dim=8, hid_dim=16)
        >>> tuple(head(keras.ops.ones((4, 8)), keras.ops.ones((4, 8))).shape)
        (4, 1)

    Reference:
        Neural Collaborative Filtering, https://arxiv.org/abs/1708.05031
    """

    def __init__(self, emb_dim: int, hid_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        if emb_dim < 1 or hid_dim < 1:
            raise ValueError(f"emb_dim and hid_dim must be positive, got {emb_dim} and {hid_dim}.")
        self.emb_dim = emb_dim
        self.hid_dim = hid_dim
        self.hidden = keras.layers.Dense(
            hid_dim, activation="relu", dtype=self.dtype_policy, name="hidden"
        )
        # The sigmoid stays in float32, where small probabilities keep their digits.
        self.probability = keras.layers.Dense(
            1, activation="sigmoid", dtype="float32", name="probability"
        )

    def build(self, h_u_shape, g_i_shape=None):
        for name, shape in (("h_u", h_u_shape), ("g_i", g_i_shape or h_u_shape)):
            if shape[-1] != self.emb_dim:
                raise ValueError(
                    f"{name} must be {self.emb_dim} wide (emb_dim), got shape {tuple(shape)}."
                )
        self.hidden.build((*h_u_shape[:-1], 2 * self.emb_dim))
        self.probability.build((*h_u_shape[:-1], self.hid_dim))
        super().build(h_u_shape)

    def call(self, h_u, g_i):
        return self.probability(self.hidden(ops.concatenate([h_u, g_i], axis=-1)))

    def compute_output_shape(self, h_u_shape, g_i_shape=None):
        return (*h_u_shape[:-1], 1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"emb_dim": self.emb_dim, "hid_dim": self.hid_dim}
