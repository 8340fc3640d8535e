"""The head that turns a user and an item into a probability."""

import math
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
        product: Whether the hidden layer reads `h_u * g_i` as well. A network
            learns a dot product slowly; vectors that were trained to match
            by one keep what they know.
        num_crosses: Crosses of the features that the hidden layer reads, by
            `keras_rs.layers.FeatureCross`.
        dropout: Share of the hidden layer dropped in training.
        zero_start: Whether an untrained head adds nothing to `bias`, so that
            training begins with what that knows.
        base_rate: Probability that an untrained head with `zero_start` gives,
            and others give on average: the share of positive labels, if known.

    Call arguments:
        h_u: Float tensor `[..., emb_dim]`, the users.
        g_i: Float tensor `[..., emb_dim]`, the items.
        bias: Optional float tensor `[..., 1]`, added to the logit.

    Returns:
        float32 tensor `[..., 1]` in 0..1.

    Raises:
        ValueError: If a size is not positive, an input has another width, or
            `base_rate` does not lie between 0 and 1.

    Example:
        >>> head = Recommendation(emb_dim=8, hid_dim=16)
        >>> tuple(head(keras.ops.ones((4, 8)), keras.ops.ones((4, 8))).shape)
        (4, 1)

    Reference:
        Neural Collaborative Filtering, https://arxiv.org/abs/1708.05031;
        Neural Collaborative Filtering vs. Matrix Factorization Revisited,
        https://arxiv.org/abs/2005.09683; DCN V2, https://arxiv.org/abs/2008.13535;
        Wide & Deep, https://arxiv.org/abs/1606.07792
    """

    def __init__(
        self,
        emb_dim: int,
        hid_dim: int,
        *,
        product: bool = False,
        num_crosses: int = 0,
        dropout: float = 0.0,
        zero_start: bool = False,
        base_rate: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if emb_dim < 1 or hid_dim < 1:
            raise ValueError(f"emb_dim and hid_dim must be positive, got {emb_dim} and {hid_dim}.")
        self.emb_dim = emb_dim
        self.hid_dim = hid_dim
        self.product = product
        self.num_crosses = num_crosses
        self.dropout = dropout
        self.zero_start = zero_start
        self.base_rate = base_rate
        self.crosses = feature_crosses(self, num_crosses)
        self.hidden = keras.layers.Dense(
            hid_dim, activation="relu", dtype=self.dtype_policy, name="hidden"
        )
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")
        # The logit stays in float32, where small probabilities keep their digits.
        self.probability = logit_layer(
            "probability", zero_start=zero_start, base_rate=base_rate, dtype="float32"
        )

    def build(self, h_u_shape, g_i_shape=None, bias_shape=None):
        for name, shape in (("h_u", h_u_shape), ("g_i", g_i_shape or h_u_shape)):
            if shape[-1] != self.emb_dim:
                raise ValueError(
                    f"{name} must be {self.emb_dim} wide (emb_dim), got shape {tuple(shape)}."
                )
        read = (*h_u_shape[:-1], (3 if self.product else 2) * self.emb_dim)
        for cross in self.crosses:
            cross.build(read)
            # keras-rs leaves this to the first call, after which a saved model would not load.
            cross.dense.build(read)
        self.hidden.build(read)
        self.probability.build((*h_u_shape[:-1], self.hid_dim))
        super().build(h_u_shape)

    def call(self, h_u, g_i, bias=None, training=None):
        read = [h_u, g_i, h_u * g_i] if self.product else [h_u, g_i]
        first = features = ops.concatenate(read, axis=-1)
        for cross in self.crosses:
            features = cross(first, features)
        logit = self.probability(self.drop(self.hidden(features), training=training))
        return ops.sigmoid(logit if bias is None else logit + bias)

    def compute_output_shape(self, h_u_shape, g_i_shape=None, bias_shape=None):
        return (*h_u_shape[:-1], 1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "emb_dim": self.emb_dim,
            "hid_dim": self.hid_dim,
            "product": self.product,
            "num_crosses": self.num_crosses,
            "dropout": self.dropout,
            "zero_start": self.zero_start,
            "base_rate": self.base_rate,
        }


def logit_layer(
    name: str, *, zero_start: bool, base_rate: float, dtype: Any = None
) -> keras.layers.Dense:
    """Returns the map to one logit, whose sigmoid starts at `base_rate`.

    Raises:
        ValueError: If `base_rate` does not lie between 0 and 1.
    """
    if not 0.0 < base_rate < 1.0:
        raise ValueError(f"base_rate must lie between 0 and 1, got {base_rate}.")
    return keras.layers.Dense(
        1,
        kernel_initializer="zeros" if zero_start else "glorot_uniform",
        bias_initializer=keras.initializers.Constant(math.log(base_rate / (1.0 - base_rate))),
        dtype=dtype,
        name=name,
    )


def feature_crosses(owner: keras.layers.Layer, count: int) -> list[keras.layers.Layer]:
    """Returns `count` crosses with the dtype policy of the layer they are part of."""
    if not count:
        return []
    from keras_rs.layers import FeatureCross

    return [FeatureCross(dtype=owner.dtype_policy, name=f"cross_{i}") for i in range(count)]
