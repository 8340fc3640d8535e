"""The second Transformer: an item's features to its vector."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfrec_llm.data.feature_encoding import FeatureEncoding, FeatureSpec, feature_specs
from tfrec_llm.layers.feature_embedding import FeatureEmbedding, small_outputs
from tfrec_llm.layers.transformer_encoder import TransformerEncoder


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ItemEncoder(keras.layers.Layer):
    """Encodes an item's features by a Transformer: `g = W mean(Transformer(f_1 .. f_n))`.

    Each feature is a token and looks at the others, so that what a price says
    can depend on the category. Tokens have no order. With `num_layers=0` they
    are averaged as they are, which is a linear model of the features.

    Args:
        specs: A `FeatureSpec` a feature, or the `FeatureEncoding`.
        emb_dim: Width of tokens and of the vector.
        num_layers: Number of Transformer blocks.
        num_heads: Number of attention heads; divides `emb_dim`.
        hid_dim: Width of the feed-forward sublayers; None stands for
            `4 * emb_dim`.
        block: `"pre_norm"`, `"post_norm"` or `"gated"`, see `TransformerBlock`.
        dropout: Share of tokens' entries and sublayer outputs dropped in
            training.

    Call arguments:
        features: A dict of tensors, see `FeatureEmbedding`.

    Returns:
        Float tensor `[..., emb_dim]`.

    Raises:
        ValueError: If sizes do not fit.

    Example:
        >>> encoding = tfrec_llm.data.FeatureEncoding.fit({"kind": ["top", "skirt"], "usd": [5, 9]})
        >>> encoder = ItemEncoder(encoding.specs, emb_dim=8)
        >>> tuple(encoder(encoding.encode({"kind": ["skirt"], "usd": [7]})).shape)
        (1, 8)

    Reference:
        FT-Transformer, https://arxiv.org/abs/2106.11959
    """

    def __init__(
        self,
        specs: Sequence[FeatureSpec] | FeatureEncoding,
        emb_dim: int,
        *,
        num_layers: int = 1,
        num_heads: int = 2,
        hid_dim: int | None = None,
        block: str = "pre_norm",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.specs = feature_specs(specs)
        self.emb_dim = emb_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hid_dim = hid_dim
        self.block = block
        self.dropout = dropout
        self.feature_embedding = FeatureEmbedding(
            self.specs, emb_dim, dtype=self.dtype_policy, name="feature_embedding"
        )
        self.transformer = TransformerEncoder(
            num_layers,
            num_heads,
            hid_dim=hid_dim,
            block=block,
            # Tokens come from tables and dense maps of many kinds; so all weigh alike.
            input_norm=True,
            position_encoding="none",
            dropout=dropout,
            dtype=self.dtype_policy,
            name="transformer",
        )
        self.output_map = keras.layers.Dense(
            emb_dim,
            kernel_initializer=small_outputs(0.02),
            dtype=self.dtype_policy,
            name="output_map",
        )

    def build(self, features_shape=None):
        self.feature_embedding.build()
        self.transformer.build((None, len(self.specs), self.emb_dim))
        self.output_map.build((None, self.emb_dim))
        super().build(features_shape)

    def call(self, features, training=None):
        return self.vector(self.hidden(features, training=training))

    def vector(self, hidden):
        """Returns the vector `[..., emb_dim]` of the tokens that `hidden` gave."""
        return self.output_map(ops.mean(hidden, axis=-2))

    def hidden(self, features, training=None):
        """Returns the encoded token of every feature, float `[..., num_features, emb_dim]`.

        Args:
            features: As in a call.
            training: Whether to drop out.
        """
        tokens = self.feature_embedding(features)
        flat = ops.reshape(tokens, (-1, len(self.specs), self.emb_dim))
        with warnings.catch_warnings():
            # A feature that is alone looks at itself, which Keras takes for a mistake.
            warnings.filterwarnings("ignore", message="You are using a softmax over axis")
            hidden = self.transformer(flat, training=training)
        return ops.reshape(hidden, ops.shape(tokens))

    def compute_output_spec(self, features, training=None):
        tokens = self.feature_embedding.compute_output_spec(features)
        return keras.KerasTensor((*tokens.shape[:-2], self.emb_dim), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "specs": [spec.get_config() for spec in self.specs],
            "emb_dim": self.emb_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hid_dim": self.hid_dim,
            "block": self.block,
            "dropout": self.dropout,
        }
