"""Scores of a pre-trained behaviour model, in the form that all scorers share."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.data.batches import padded_batch
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.evaluation.scorer import Scorer

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue
    from tfrec_llm.models.behavior_model import BehaviorModel


class ModelScorer(Scorer):
    """Ranks a catalogue by a `NextBehaviorModel` or `MaskedBehaviorModel`.

    A user without any behaviour is scored by how often items occur.

    Args:
        model: The model; its scores are those of `model.predict`.
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

    def score(self, sequences: UserSequences) -> np.ndarray:
        return model_scores(self.model, self.vocabulary, sequences)


def model_scores(
    model: "BehaviorModel", vocabulary: Vocabulary, sequences: UserSequences
) -> np.ndarray:
    """Returns a model's scores of the whole catalogue, as `Scorer.score` does.

    Histories of about one length go through the model together, so that
    little is padded. Where the model reads kinds of behaviour and the
    histories name none, they count as not known.
    """
    scores = np.empty((len(sequences), vocabulary.size), np.float32)
    max_length = model.encoder.max_length
    sizes = np.minimum(sequences.lengths, max_length)
    # 0 for empty histories, else the power of two that holds the history.
    buckets = np.ceil(np.log2(np.maximum(sizes, 8))).astype(np.int64) * (sizes > 0)
    for bucket in np.unique(buckets):
        rows = np.flatnonzero(buckets == bucket)
        if bucket == 0:
            scores[rows] = vocabulary.counts
        else:
            batch = padded_batch(sequences, rows, max_length=max_length)
            if model.encoder.num_behaviors and "behaviors" not in batch:
                batch["behaviors"] = np.zeros_like(batch["items"])
            scores[rows] = model.predict_on_batch(batch)
    scores[:, :NUM_RESERVED] = -np.inf
    return scores


def similarities(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns float32 `[rows, items]`: cosine of the vectors at `rows` with all vectors."""
    unit: Any = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (unit[rows] @ unit.T).astype(np.float32)
