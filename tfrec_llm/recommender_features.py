"""How a recommender knows items by their features."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.feature_encoding import FeatureEncoding
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import DataError
from tfrec_llm.layers.feature_lookup import FeatureLookup
from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.layers.item_encoder import ItemEncoder

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue

_OF_ENCODING = ("min_count", "max_values", "max_words")


class ItemFeatures:
    """The features that a recommender reads, and how; see `Recommender`.

    Args:
        columns: Their names, or True for all of the catalogue.
        options: Of `FeatureEncoding.fit` and `ItemEncoder`, and `id_dropout`.

    Attributes:
        encoding: What was learned of the features; None before `fit`.

    Raises:
        ValueError: If an option is unknown or does not fit.

    Example:
        >>> features = ItemFeatures(["price"], {"id_dropout": 0.3, "num_layers": 2})
        >>> features.encoding is None
        True
    """

    def __init__(self, columns: bool | Sequence[str], options: dict[str, Any]):
        if isinstance(columns, str):
            raise ValueError(f"item_features is a list of names, or True; got {columns!r}.")
        self.columns = None if columns is True else list(columns or ())
        options = {"id_dropout": 0.2} | options
        self._id_dropout = options.pop("id_dropout")
        self._of_encoding = {name: options.pop(name) for name in _OF_ENCODING if name in options}
        self._of_encoder = options
        self.encoding: FeatureEncoding | None = None

    def fit(self, catalogue: "Catalogue | None", vocabulary: Vocabulary) -> None:
        """Learns values and statistics of the items that training sees.

        Raises:
            DataError: If there is no catalogue, or a feature has no value.
            MissingColumnError: If it lacks a feature.
        """
        if catalogue is None:
            raise DataError(
                "item_features need a catalogue, and the log has none. Give it where the log is "
                "read: BehaviorLog.from_...(..., catalogue=Catalogue(...))."
            )
        self.encoding = FeatureEncoding.fit(
            catalogue, ids=vocabulary.ids, columns=self.columns, **self._of_encoding
        )

    def check(self, emb_dim: int) -> None:
        """Makes all of it once for nothing, so that a wrong option is told before training."""
        encoding = FeatureEncoding.fit({"number": [0.0, 1.0]}, **self._of_encoding)
        self._embedding(encoding, NUM_RESERVED + 1, emb_dim, "float32", "item_embedding").build()

    def embedding(self, vocab_size: int, emb_dim: int, dtype: Any, name: str) -> ItemEmbedding:
        """Returns a new embedding, whose features are all missing until they are put in."""
        assert self.encoding is not None
        return self._embedding(self.encoding, vocab_size, emb_dim, dtype, name)

    def put(
        self, model: Any, catalogue: "Catalogue | None", vocabulary: Vocabulary, first: int
    ) -> None:
        """Puts the features of a vocabulary's items, from an index on, into a model."""
        assert self.encoding is not None
        ids = vocabulary.ids[first - NUM_RESERVED :]
        arrays = (
            self.encoding.missing(len(ids))
            if catalogue is None
            else self.encoding.encode(catalogue, ids=ids)
        )
        for embedding in embeddings_with_features(model):
            embedding.features.put(first, arrays)

    def _embedding(self, encoding, vocab_size, emb_dim, dtype, name) -> ItemEmbedding:
        return ItemEmbedding(
            vocab_size,
            emb_dim,
            features=FeatureLookup(encoding, vocab_size=vocab_size, name="features"),
            feature_encoder=ItemEncoder(
                encoding.specs, emb_dim, dtype=dtype, name="feature_encoder", **self._of_encoder
            ),
            id_dropout=self._id_dropout,
            dtype=dtype,
            name=name,
        )


def embeddings_with_features(model: Any) -> list[ItemEmbedding]:
    """Returns the layers of a behaviour model that read items by features."""
    layers = [model.encoder.item_embedding, model.output_embedding]
    return [layer for layer in layers if getattr(layer, "features", None) is not None]


def mark_seen(model: Any, seen: np.ndarray, *, only: bool) -> None:
    """Tells a model which indexes training sees: these have vectors of their own.

    Args:
        model: A behaviour model.
        seen: Boolean `[vocab_size]`. The reserved indexes are seen whatever it says: the mask
            has nothing but its own vector.
        only: Whether others are unseen; else they stay what they were.
    """
    seen = seen | (np.arange(len(seen)) < NUM_RESERVED)
    for embedding in embeddings_with_features(model):
        before = keras.ops.convert_to_numpy(embedding.seen)[:, 0] > 0
        embedding.seen.assign((seen if only else seen | before)[:, None].astype(np.float32))


def grown_weight(old: np.ndarray, rows: int, *, with_features: bool) -> np.ndarray:
    """Returns an item table with rows for new items.

    A new item has the mean vector; where items have features it has none of its own and waits as
    zeros, until training has seen it.

    Args:
        old: `[old rows, ...]`.
        rows: Number of rows wanted.
        with_features: Whether items have features.
    """
    added = np.zeros((rows - len(old), *old.shape[1:]), old.dtype)
    if not with_features:
        added += old[NUM_RESERVED:].mean(axis=0, keepdims=True)
    return np.concatenate([old, added])
