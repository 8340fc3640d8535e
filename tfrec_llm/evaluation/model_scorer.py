"""Scores of a pre-trained behaviour model, in the form that all scorers share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from tfrec_llm.data.batches import padded_batch
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.evaluation.item_scores import ItemScores, RowsReplaced
from tfrec_llm.evaluation.product_scores import ProductScores
from tfrec_llm.evaluation.scorer import Scorer

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue
    from tfrec_llm.models.behavior_model import BehaviorModel


class ModelScorer(Scorer):
    """Ranks a catalogue by a `NextBehaviorModel` or `MaskedBehaviorModel`.

    A user without any behaviour is scored by how often items occur. Users are scored against one
    block of items after the other, so memory does not grow with users times items.

    Args:
        model: The model; its scores are those of `model.predict`, up to rounding.
        vocabulary: The items the model was made for.
        histories: What known users did.
        catalogue: What is known of the items.

    Raises:
        ValueError: If the vocabulary's size is not the model's.

    Example:
        >>> vocabulary = tfrec_llm.data.Vocabulary(["a", "b", "c"])
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=vocabulary.size, emb_dim=8)
        >>> scorer = ModelScorer(tfrec_llm.models.NextBehaviorModel(encoder), vocabulary)
        >>> len(scorer.recommend(histories=[["a"]], k=5))
        2
    """

    def __init__(
        self,
        model: "BehaviorModel",
        vocabulary: Vocabulary,
        *,
        histories: UserSequences | None = None,
        catalogue: "Catalogue | None" = None,
    ):
        if model.encoder.vocab_size != vocabulary.size:
            raise ValueError(
                f"The model was made for {model.encoder.vocab_size} indexes and the vocabulary "
                f"has {vocabulary.size}: they do not belong together."
            )
        self.model = model
        self.vocabulary = vocabulary
        self.histories = histories
        self.catalogue = catalogue

    streams = True

    def score(self, sequences: UserSequences) -> np.ndarray:
        return self.item_scores(sequences).whole_rows(NUM_RESERVED)

    def item_scores(self, sequences: UserSequences) -> ItemScores:
        return model_item_scores(self.model, self.vocabulary, sequences)

    def vectors_of(self, items: np.ndarray) -> np.ndarray:
        return model_vectors_of(self.model, items)


def model_vectors_of(model: "BehaviorModel", items: np.ndarray) -> np.ndarray:
    """Returns a model's item vectors, as `Scorer.vectors_of` does."""
    indexes = np.asarray(items + NUM_RESERVED, np.int32)
    return np.asarray(ops.cast(model.vectors_of(indexes), "float32"))


def model_item_scores(
    model: "BehaviorModel",
    vocabulary: Vocabulary,
    sequences: UserSequences,
    *,
    products: Callable[[np.ndarray], ItemScores] | None = None,
) -> ItemScores:
    """Returns a model's scores in blocks of items, as `Scorer.item_scores` does.

    Args:
        model: The model.
        vocabulary: Its items.
        sequences: The histories.
        products: Gives the scores of users' vectors `[n, emb_dim]`; None
            multiplies them with the model's item vectors.
    """
    vectors = model_user_vectors(model, sequences)
    if products is None:
        # On a processor this is the table itself, not a copy.
        items = np.asarray(ops.cast(model.item_vectors, "float32"))
        scores: ItemScores = ProductScores(vectors, items[NUM_RESERVED:], len(vocabulary))
    else:
        scores = products(vectors)
    empty = np.flatnonzero(sequences.lengths == 0)
    if not len(empty):
        return scores
    return RowsReplaced(scores, empty, vocabulary.counts[NUM_RESERVED:].astype(np.float32))


def model_user_vectors(model: "BehaviorModel", sequences: UserSequences) -> np.ndarray:
    """Returns users' vectors, whose products with the items' are the scores.

    Histories of about one length go through the model together, so that
    little is padded. Where the model reads kinds of behaviour and the
    histories name none, they count as not known.

    Args:
        model: The model.
        sequences: n histories.

    Returns:
        float32 `[n, emb_dim]`; zeros for empty histories.
    """
    max_length = model.encoder.max_length
    sizes = np.minimum(sequences.lengths, max_length)
    vectors = np.zeros((len(sequences), model.encoder.emb_dim), np.float32)
    # 0 for empty histories, else the power of two that holds the history.
    buckets = np.ceil(np.log2(np.maximum(sizes, 8))).astype(np.int64) * (sizes > 0)
    for bucket in np.unique(buckets[buckets > 0]):
        rows = np.flatnonzero(buckets == bucket)
        batch = padded_batch(sequences, rows, max_length=max_length)
        if model.encoder.num_behaviors and "behaviors" not in batch:
            batch["behaviors"] = np.zeros_like(batch["items"])
        vectors[rows] = model.predict_on_batch(model.asking(batch))[:, 0]
    return vectors


def similarities(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns float32 `[rows, items]`: cosine of the vectors at `rows` with all vectors."""
    unit: Any = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (unit[rows] @ unit.T).astype(np.float32)
