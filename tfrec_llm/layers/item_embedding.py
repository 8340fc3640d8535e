"""Vectors of items by their index."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.feature_lookup import FeatureLookup
from tfrec_llm.layers.item_encoder import ItemEncoder
from tfrec_llm.layers.item_table import ItemTable
from tfrec_llm.losses.table_rows import trained_rows

# Rows with features that are encoded together, at the least; chunks beyond the most grow instead.
_CHUNK, _MOST_CHUNKS = 4096, 16


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ItemEmbedding(ItemTable):
    """A trained vector for each item, by its index, its features or both.

    Without features `g_i = E[i]`. With features `g_i = E[i] + G(features_i)`,
    G being an `ItemEncoder`: items that are alike share what is learned, and
    an item without any behaviour, whose `seen` is 0, is `G(features_i)`.

    Args:
        vocab_size: Number of indexes, the reserved ones included.
        emb_dim: Width of a vector.
        features: A `FeatureLookup` of as many indexes, or None.
        feature_encoder: The `ItemEncoder`, such as a pre-trained one; None
            makes one.
        id_dropout: Share of lookups in training that leave `E[i]` out, so that
            the features learn to stand alone. Indexes of which no feature is
            known keep it, the reserved ones among them.
        embeddings_initializer: Initializer of the table.

    Attributes:
        table: float32 variable `[vocab_size, emb_dim]`: E.
        seen: With features, a variable `[vocab_size, 1]` that is not trained:
            1 where `E[i]` counts, 0 for indexes that no training has seen.
            Losses over a catalogue do not take these as negatives.

    Call arguments:
        items: Integer tensor of any shape, `0 <= items < vocab_size`.

    Returns:
        Float tensor of the shape of `items` with `emb_dim` behind it.

    Raises:
        ValueError: If a size is not positive, sizes differ, or features are
            needed and missing.

    Example:
        >>> item_embedding = ItemEmbedding(vocab_size=100, emb_dim=8)
        >>> tuple(item_embedding(keras.ops.array([[3, 4, 5]])).shape)
        (1, 3, 8)

        >>> encoding = tfrec_llm.data.FeatureEncoding.fit({"usd": [5, 9, 20]})
        >>> lookup = tfrec_llm.layers.FeatureLookup(encoding, encoding.encode({"usd": [5, 20]}))
        >>> item_embedding = ItemEmbedding(2, 8, features=lookup, id_dropout=0.2)
        >>> tuple(item_embedding(keras.ops.array([0, 1])).shape)
        (2, 8)

    Reference:
        DropoutNet, https://papers.nips.cc/paper/7081
    """

    def __init__(
        self,
        vocab_size: int,
        emb_dim: int,
        *,
        features: FeatureLookup | None = None,
        feature_encoder: ItemEncoder | None = None,
        id_dropout: float = 0.0,
        embeddings_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if vocab_size < 1 or emb_dim < 1:
            raise ValueError(
                f"vocab_size and emb_dim must be positive, got {vocab_size} and {emb_dim}."
            )
        if not 0.0 <= id_dropout < 1.0:
            raise ValueError(f"id_dropout must lie in 0..1, below 1, got {id_dropout}.")
        if features is None and (id_dropout or feature_encoder is not None):
            raise ValueError("id_dropout and feature_encoder need features.")
        if features is not None and features.vocab_size != vocab_size:
            raise ValueError(
                f"features has {features.vocab_size} rows; vocab_size is {vocab_size}."
            )
        if feature_encoder is not None and feature_encoder.emb_dim != emb_dim:
            raise ValueError(
                f"feature_encoder gives vectors of {feature_encoder.emb_dim}; emb_dim is {emb_dim}."
            )
        self.vocab_size = vocab_size
        self.emb_dim = emb_dim
        self.features: Any = features
        self.feature_encoder: Any = feature_encoder
        self.id_dropout = id_dropout
        self.embeddings_initializer = keras.initializers.get(
            embeddings_initializer or keras.initializers.TruncatedNormal(stddev=0.02)
        )
        if features is not None and feature_encoder is None:
            self.feature_encoder = ItemEncoder(
                features.specs, emb_dim, dtype=self.dtype_policy, name="feature_encoder"
            )
        if id_dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def build(self, items_shape=None):
        self.table = self.add_weight(
            shape=(self.vocab_size, self.emb_dim),
            initializer=self.embeddings_initializer,
            # Rows are cast when they are taken, so that gradients add up in float32.
            autocast=False,
            name="table",
        )
        if self.features is not None:
            self.seen = self.add_weight(
                shape=(self.vocab_size, 1),
                initializer="ones",
                trainable=False,
                autocast=False,
                name="seen",
            )
            if not self.features.built:
                self.features.build()
            if not self.feature_encoder.built:
                self.feature_encoder.build()
        super().build(items_shape)

    def rows(self, items, *, training=False):
        own = trained_rows(self.table, items)
        return own if self.features is None else self._with_features(own, items, training)

    def all_rows(self, *, training=False):
        if self.features is None:
            return self.table
        if training:  # gradients are taken of it, for which all stays in memory anyway
            items = ops.arange(self.vocab_size)
            return self._with_features(ops.cast(self.table, "float32"), items, training)
        size = max(_CHUNK, -(-self.vocab_size // _MOST_CHUNKS))
        chunks = []
        for first in range(0, self.vocab_size, size):
            items = ops.arange(first, min(first + size, self.vocab_size))
            chunks.append(self._with_features(self.table[first : first + size], items, False))
        return ops.concatenate(chunks, axis=0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocab_size": self.vocab_size,
            "emb_dim": self.emb_dim,
            "features": keras.saving.serialize_keras_object(self.features),
            "feature_encoder": keras.saving.serialize_keras_object(self.feature_encoder),
            "id_dropout": self.id_dropout,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }

    @classmethod
    def from_config(cls, config):
        layers = {
            name: keras.saving.deserialize_keras_object(config.get(name))
            for name in ("features", "feature_encoder")
        }
        return cls(**config | layers)

    def _with_features(self, own, items, training):
        """Returns float32 vectors of items, given those of their indexes."""
        features = self.features(items)
        share = ops.take(self.seen, items, axis=0)
        if training and self.id_dropout:
            draws = keras.random.uniform(ops.shape(items), seed=self.seed_generator)
            dropped = ops.logical_and(draws < self.id_dropout, self.features.known(features))
            share = ops.where(dropped[..., None], 0.0, share)
        encoded = self.feature_encoder(features, training=training)
        return share * own + ops.cast(encoded, "float32")
