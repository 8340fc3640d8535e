"""A stack of Transformer blocks over packed histories."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.normalization import normalization
from tfrec_llm.layers.transformer_block import TransformerBlock
from tfrec_llm.losses.table_rows import table_rows

POSITIONS = ("learned", "rotary", "none")


@keras.saving.register_keras_serializable(package="tfrec_llm")
class TransformerEncoder(keras.layers.Layer):
    """Encodes sequences of vectors; several users may share a row.

    A query looks at keys of its own segment only, so a packed row gives the
    same hidden states as its users alone. Where no segments are given, a row
    is one sequence; where no positions are given, they count from the end of
    the row, the newest being 0.

    Args:
        num_layers: Number of Transformer blocks.
        num_heads: Number of attention heads; divides the width of the input.
        hid_dim: Width of the feed-forward sublayers; None stands for four
            times the width of the input.
        block: `"pre_norm"`, `"post_norm"` or `"gated"`, see `TransformerBlock`.
        input_norm: Whether the input is normalised before the first block, so
            that its vectors weigh as much as what the blocks add; None stands
            for yes with `"post_norm"` and no with the others.
        position_encoding: `"learned"` adds a trained vector a position,
            `"rotary"` turns queries and keys, `"none"` leaves order unseen.
        max_length: Number of learned positions; larger ones share the last.
        causal: Whether a query sees only itself and what came before it.
        dropout: Share of inputs and sublayer outputs dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        filter_share: See `TransformerBlock`.
        initializer_range: Standard deviation of the truncated normal
            distribution that kernels and positions start from.

    Call arguments:
        x: Float tensor `[rows, length, emb_dim]`.
        segments: Optional integer tensor `[rows, length]`: 0 where padded,
            else 1, 2, ... for the sequences that share the row.
        positions: Optional integer tensor `[rows, length]`.

    Returns:
        Float tensor `[rows, length, emb_dim]`, normalised.

    Raises:
        ValueError: If an option has an unknown name.

    Example:
        >>> encoder = TransformerEncoder(num_layers=2, num_heads=2, max_length=50)
        >>> tuple(encoder(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 8)

    Reference:
        SASRec, https://arxiv.org/abs/1808.09781;
        BERT4Rec, https://arxiv.org/abs/1904.06690
    """

    def __init__(
        self,
        num_layers: int = 2,
        num_heads: int = 2,
        *,
        hid_dim: int | None = None,
        block: str = "pre_norm",
        input_norm: bool | None = None,
        position_encoding: str = "learned",
        max_length: int = 200,
        causal: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        filter_share: float = 0.0,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if position_encoding not in POSITIONS:
            raise ValueError(
                f"position_encoding must be one of {POSITIONS}, got {position_encoding!r}."
            )
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hid_dim = hid_dim
        self.block = block
        self.input_norm = input_norm
        self.position_encoding = position_encoding
        self.max_length = max_length
        self.causal = causal
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.filter_share = filter_share
        self.initializer_range = initializer_range
        self.blocks = [
            TransformerBlock(
                num_heads,
                hid_dim=hid_dim,
                block=block,
                dropout=dropout,
                attention_dropout=attention_dropout,
                filter_share=filter_share,
                rotary=position_encoding == "rotary",
                kernel_initializer=_truncated_normal(initializer_range),
                dtype=self.dtype_policy,
                name=f"block_{index}",
            )
            for index in range(num_layers)
        ]
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")
        self.norm_input = (block == "post_norm") if input_norm is None else input_norm
        # Blocks that end with a norm need no other behind them.
        self.norm_output = block != "post_norm"
        if self.norm_input:
            self.first_norm = normalization(self, "first_norm")
        if self.norm_output:
            self.norm = normalization(self, "norm")

    def build(self, x_shape, segments_shape=None, positions_shape=None):
        if self.position_encoding == "learned":
            self.position_table = self.add_weight(
                shape=(self.max_length, x_shape[-1]),
                initializer=_truncated_normal(self.initializer_range),
                # Cast when taken, so that the gradients of all users add up in float32.
                autocast=False,
                name="position_table",
            )
        for block in self.blocks:
            block.build(x_shape)
        if self.norm_input:
            self.first_norm.build(x_shape)
        if self.norm_output:
            self.norm.build(x_shape)
        super().build(x_shape)

    def call(self, x, segments=None, positions=None, training=None):
        length = ops.shape(x)[1] if x.shape[1] is None else x.shape[1]
        if positions is None:
            newest_first = ops.arange(length - 1, -1, -1, dtype="int32")
            positions = ops.broadcast_to(newest_first[None], (ops.shape(x)[0], length))
        if self.position_encoding == "learned":
            kept = ops.minimum(positions, self.max_length - 1)
            x = x + ops.cast(table_rows(self.position_table, kept), x.dtype)
        if self.norm_input:
            x = self.first_norm(x)
        x = self.drop(x, training=training)
        mask = self._mask(segments, length, x.dtype)
        for block in self.blocks:
            x = block(x, attention_mask=mask, positions=positions, training=training)
        return self.norm(x) if self.norm_output else x

    def compute_output_shape(self, x_shape, *args, **kwargs):
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hid_dim": self.hid_dim,
            "block": self.block,
            "input_norm": self.input_norm,
            "position_encoding": self.position_encoding,
            "max_length": self.max_length,
            "causal": self.causal,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "filter_share": self.filter_share,
            "initializer_range": self.initializer_range,
        }

    def _mask(self, segments, length, dtype):
        """0 where a query may look and -1e4 elsewhere, finite so that padding gives no NaN."""
        allowed = None
        if self.causal:
            order = ops.arange(length)
            allowed = (order[:, None] >= order[None, :])[None, None]
        if segments is not None:
            same = (segments[:, :, None] == segments[:, None, :])[:, None]
            allowed = same if allowed is None else ops.logical_and(same, allowed)
        return None if allowed is None else ops.cast(ops.where(allowed, 0.0, -1e4), dtype)


def _truncated_normal(stddev):
    return keras.initializers.TruncatedNormal(stddev=stddev)
