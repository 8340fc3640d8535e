"""One Transformer block."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.feed_forward import FeedForward
from tfrec_llm.layers.gated_residual import GatedResidual
from tfrec_llm.layers.normalization import normalization
from tfrec_llm.layers.recency_filter import RecencyFilter
from tfrec_llm.layers.self_attention import SelfAttention

BLOCKS = ("pre_norm", "post_norm", "gated")


@keras.saving.register_keras_serializable(package="tfrec_llm")
class TransformerBlock(keras.layers.Layer):
    """Self-attention and feed-forward, each added to what it read.

    `"pre_norm"` is `x + sublayer(norm(x))` with GELU, `"post_norm"`
    `norm(x + sublayer(x))`, as in BERT; `"gated"` is
    `x + sigmoid(W x) * sublayer(norm(x))` with SwiGLU, which gained 7 % hit
    rate on MovieLens-1M in the eSASRec study and keeps deep stacks trainable.

    Args:
        num_heads: Number of attention heads.
        hid_dim: Width of the feed-forward sublayer; None stands for four
            times the width of the input.
        block: `"pre_norm"`, `"post_norm"` or `"gated"`.
        dropout: Share of each sublayer's outputs dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        rotary: Whether attention uses rotary positions.
        filter_share: Share of a `RecencyFilter` in what attention would give
            alone, 0..1. About 0.7 suits sparse logs of short histories.
        kernel_initializer: Initializer of all kernels.

    Call arguments:
        x: Float tensor `[rows, length, emb_dim]`.
        attention_mask: See `SelfAttention`.
        positions: See `SelfAttention`.

    Returns:
        Float tensor `[rows, length, emb_dim]`.

    Raises:
        ValueError: If `block` is none of the three or `filter_share` lies
            outside 0..1.

    Example:
        >>> tuple(TransformerBlock(num_heads=2, block="gated")(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 8)

    Reference:
        eSASRec, https://arxiv.org/abs/2508.06450;
        BSARec, https://arxiv.org/abs/2312.10325
    """

    def __init__(
        self,
        num_heads: int,
        *,
        hid_dim: int | None = None,
        block: str = "pre_norm",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        rotary: bool = False,
        filter_share: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if block not in BLOCKS:
            raise ValueError(f"block must be one of {BLOCKS}, got {block!r}.")
        if not 0.0 <= filter_share <= 1.0:
            raise ValueError(f"filter_share must lie in 0..1, got {filter_share}.")
        self.num_heads = num_heads
        self.hid_dim = hid_dim
        self.block = block
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.rotary = rotary
        self.filter_share = filter_share
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape):
        policy = self.dtype_policy
        gated = self.block == "gated"
        self.attention_norm = normalization(self, "attention_norm")
        self.attention = SelfAttention(
            self.num_heads,
            dropout=self.attention_dropout,
            rotary=self.rotary,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=policy,
            name="attention",
        )
        self.feed_forward_norm = normalization(self, "feed_forward_norm")
        self.feed_forward = FeedForward(
            self.hid_dim,
            activation="swiglu" if gated else "gelu",
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=policy,
            name="feed_forward",
        )
        if gated:
            self.attention_add = GatedResidual(dtype=policy, name="attention_add")
            self.attention_add.build(x_shape)
            self.feed_forward_add = GatedResidual(dtype=policy, name="feed_forward_add")
            self.feed_forward_add.build(x_shape)
        else:
            self.attention_add = self.feed_forward_add = ops.add
        self.drop = keras.layers.Dropout(self.dropout, dtype=policy, name="drop")
        for layer in (
            self.attention_norm,
            self.attention,
            self.feed_forward_norm,
            self.feed_forward,
        ):
            layer.build(x_shape)
        if self.filter_share:
            self.filter = RecencyFilter(dtype=policy, name="filter")
            self.filter.build(x_shape)
            if self.block == "post_norm":
                self.filter_norm = normalization(self, "filter_norm")
                self.filter_norm.build(x_shape)
        super().build(x_shape)

    def call(self, x, attention_mask=None, positions=None, training=None):
        def drop(x):
            return self.drop(x, training=training)

        def attend(x):
            return self.attention(
                x, attention_mask=attention_mask, positions=positions, training=training
            )

        def run_filter(x):
            return self.filter(x, attention_mask, positions)

        share = self.filter_share
        if self.block == "post_norm":
            mixed = self.attention_norm(x + drop(attend(x)))
            if share:
                filtered = self.filter_norm(x + drop(run_filter(x)))
                mixed = share * filtered + (1.0 - share) * mixed
            return self.feed_forward_norm(mixed + drop(self.feed_forward(mixed)))
        read = self.attention_norm(x)
        mixed = attend(read)
        if share:
            mixed = share * run_filter(read) + (1.0 - share) * mixed
        x = self.attention_add(x, drop(mixed))
        return self.feed_forward_add(x, drop(self.feed_forward(self.feed_forward_norm(x))))

    def compute_output_shape(self, x_shape, *args, **kwargs):
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_heads": self.num_heads,
            "hid_dim": self.hid_dim,
            "block": self.block,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "rotary": self.rotary,
            "filter_share": self.filter_share,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
