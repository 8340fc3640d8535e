"""What of a history speaks for one item."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfrec_llm")
class InterestAttention(keras.layers.Layer):
    """Sums up a history as seen from a candidate: `v = sum_j a(g, e_j) e_j`.

    The activation `a` is a small network over the candidate, the behaviour,
    their product, and whether the behaviour was one of the candidate itself.
    As in the paper its values are not normalised, so that
    a user with much interest gets a longer vector than one with little.

    Args:
        hid_dim: Width of the hidden layer of the activation.
        normalize: Whether a softmax over the history makes the activations
            add up to 1.

    Call arguments:
        candidates: Float tensor `[rows, targets, emb_dim]`.
        behaviors: Float tensor `[rows, length, emb_dim]`.
        mask: Boolean tensor `[rows, targets, length]`: which behaviours a
            candidate may look at.
        same: Float tensor `[rows, targets, length]`, 1 where the behaviour is
            the candidate's own, 0 elsewhere.

    Returns:
        Float tensor `[rows, targets, emb_dim]`, zero where a candidate may look at nothing.

    Example:
        >>> attention = InterestAttention(hid_dim=8)
        >>> candidates, behaviors = keras.ops.ones((2, 3, 4)), keras.ops.ones((2, 5, 4))
        >>> mask, same = keras.ops.ones((2, 3, 5), "bool"), keras.ops.zeros((2, 3, 5))
        >>> tuple(attention(candidates, behaviors, mask, same).shape)
        (2, 3, 4)

    Reference:
        Deep Interest Network, https://arxiv.org/abs/1706.06978
    """

    def __init__(self, hid_dim: int = 32, *, normalize: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if hid_dim < 1:
            raise ValueError(f"hid_dim must be positive, got {hid_dim}.")
        self.hid_dim = hid_dim
        self.normalize = normalize

    def build(self, candidates_shape, behaviors_shape=None, mask_shape=None, same_shape=None):
        # The first layer over [g ; e ; g * e], a kernel each: only the product is made per pair.
        def part(name: str, use_bias: bool = False) -> keras.layers.Dense:
            layer = keras.layers.Dense(
                self.hid_dim, use_bias=use_bias, dtype=self.dtype_policy, name=name
            )
            layer.build(candidates_shape)
            return layer

        self.candidate = part("candidate", use_bias=True)
        self.behavior = part("behavior")
        self.product = part("product")
        self.of_same = self.add_weight(
            shape=(self.hid_dim,), initializer="glorot_uniform", name="of_same"
        )
        # A softmax does not see what all its logits share.
        self.activation = keras.layers.Dense(
            1, use_bias=not self.normalize, dtype=self.dtype_policy, name="activation"
        )
        self.activation.build((*candidates_shape[:-1], self.hid_dim))
        super().build(candidates_shape)

    def call(self, candidates, behaviors, mask, same):
        g, e = candidates[:, :, None], behaviors[:, None]
        hidden = self.candidate(g) + self.behavior(e) + self.product(g * e)
        hidden = hidden + ops.cast(same, hidden.dtype)[..., None] * self.of_same
        activation = self.activation(ops.silu(hidden))[..., 0]
        if self.normalize:
            allowed = ops.where(mask, activation, ops.cast(-1e4, activation.dtype))
            activation = ops.softmax(allowed, axis=-1)
        activation = ops.where(mask, activation, ops.zeros_like(activation))
        return ops.matmul(activation, behaviors)

    def compute_output_shape(
        self, candidates_shape, behaviors_shape=None, mask_shape=None, same_shape=None
    ):
        return candidates_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"hid_dim": self.hid_dim, "normalize": self.normalize}
