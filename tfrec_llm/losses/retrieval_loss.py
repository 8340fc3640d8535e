"""Cross-entropy of queries over the candidates of their batch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# Far below any score, and finite, so that differences of two such are no NaN.
_NEVER = -1e30


@keras.saving.register_keras_serializable(package="tfrec_llm")
class RetrievalLoss(keras.losses.Loss):
    """Softmax cross-entropy in which the other candidates of a batch are the negatives.

    For models of two towers, one of users or queries, one of items or candidates, each with any
    features: the score of a pair is the product of its vectors, and a query's own candidate is to
    score above those of the other queries. Half-precision vectors are multiplied in float32.

    Popular items are negatives more often. With `frequencies` the logarithm of how often an item
    comes is taken from its score, so that this does not push it down.

    Args:
        temperature: Scores are divided by it.
        frequencies: Optional counts `[items]` by candidate id, in any unit. A 0 counts as the
            smallest other one.
        remove_accidental_hits: Whether a candidate with the id of a query's own is no negative
            of that query.
        num_hard_negatives: How many negatives, those of the highest scores, count for a query.
            None counts all.
        reduction: `"sum_over_batch_size"`, `"sum"`, `"mean_with_sample_weight"` or `"none"`.
        name: Name of the loss.

    Call arguments:
        candidate_ids: Integer tensor `[candidates]` or `[candidates, 1]`, rows of `frequencies`.
        vectors: Float tensor `[queries, 2, emb_dim]`, a query's vector and its candidate's; or a
            pair of `[queries, emb_dim]` and `[candidates, emb_dim]`, whose first `queries`
            candidates are the queries' own and whose others are negatives of all.
        sample_weight: Optional float tensor `[queries]`.

    Returns:
        Float scalar; `[queries]` where nothing is reduced.

    Raises:
        ValueError: If `temperature` is not positive, `num_hard_negatives` is below 1, or a
            frequency is negative or all are 0.

    Example:
        >>> queries, candidates = keras.ops.eye(3), 2 * keras.ops.eye(3)
        >>> vectors = keras.ops.stack([queries, candidates], axis=1)
        >>> round(float(RetrievalLoss()(keras.ops.array([7, 8, 9]), vectors)), 4)
        0.2395
        >>> round(float(RetrievalLoss()(keras.ops.array([7, 7, 7]), vectors)), 4)
        0.0

    Reference:
        Sampling-Bias-Corrected Neural Modeling, https://doi.org/10.1145/3298689.3346996
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        frequencies: Sequence[float] | np.ndarray | None = None,
        remove_accidental_hits: bool = True,
        num_hard_negatives: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "retrieval_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if num_hard_negatives is not None and num_hard_negatives < 1:
            raise ValueError(f"num_hard_negatives must be 1 or more, got {num_hard_negatives}.")
        self.temperature = temperature
        self.frequencies = None if frequencies is None else np.asarray(frequencies, np.float64)
        if self.frequencies is not None and not (
            (self.frequencies >= 0).all() and self.frequencies.any()
        ):
            raise ValueError("frequencies must be 0 or more, and one of them more.")
        self.remove_accidental_hits = remove_accidental_hits
        self.num_hard_negatives = num_hard_negatives

    def __call__(self, candidate_ids, vectors, sample_weight=None):
        # Keras would make floats of the ids. It is given the losses, to weigh and reduce.
        losses = self.losses(candidate_ids, vectors)
        return super().__call__(losses, losses, sample_weight)

    def call(self, y_true, y_pred):
        return y_pred

    def losses(self, candidate_ids, vectors):
        """Returns the loss of each query, float32 `[queries]`; see the call arguments."""
        queries, candidates = self._pair(vectors)
        ids = ops.reshape(ops.cast(ops.convert_to_tensor(candidate_ids), "int32"), (-1,))
        scores = ops.matmul(queries, ops.transpose(candidates)) / self.temperature
        if self.frequencies is not None:
            scores = scores - ops.take(_logarithms(self.frequencies), ids)[None, :]
        num_queries, num_candidates = ops.shape(scores)
        numbers = ops.arange(num_queries)
        positive = ops.take_along_axis(scores, numbers[:, None], axis=1)
        excluded = numbers[:, None] == ops.arange(num_candidates)[None, :]
        if self.remove_accidental_hits:
            own = ops.take(ids, numbers)
            excluded = ops.logical_or(excluded, own[:, None] == ids[None, :])
        negatives = ops.where(excluded, _NEVER, scores)
        if self.num_hard_negatives is not None:
            if isinstance(num_candidates, int):
                kept = min(self.num_hard_negatives, num_candidates)
            else:
                kept = ops.minimum(self.num_hard_negatives, num_candidates)
            negatives = ops.top_k(negatives, kept, sorted=False)[0]
        logits = ops.concatenate([positive, negatives], axis=1)
        return ops.logsumexp(logits, axis=1) - positive[:, 0]

    def _pair(self, vectors):
        if isinstance(vectors, (tuple, list)):
            queries, candidates = vectors
        elif len(vectors.shape) == 3 and vectors.shape[1] == 2:
            queries, candidates = vectors[:, 0], vectors[:, 1]
        else:
            raise ValueError(
                "The vectors must have the shape [queries, 2, emb_dim], got "
                f"{tuple(vectors.shape)}. Stack a model's two outputs: "
                "keras.ops.stack([queries, candidates], axis=1)."
            )
        return ops.cast(queries, "float32"), ops.cast(candidates, "float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "temperature": self.temperature,
            "frequencies": None if self.frequencies is None else self.frequencies.tolist(),
            "remove_accidental_hits": self.remove_accidental_hits,
            "num_hard_negatives": self.num_hard_negatives,
        }


def _logarithms(frequencies: np.ndarray) -> Any:
    """Returns a float32 tensor; zeros have the logarithm of the smallest other frequency."""
    least = frequencies[frequencies > 0].min()
    return ops.convert_to_tensor(np.log(np.maximum(frequencies, least)), "float32")
