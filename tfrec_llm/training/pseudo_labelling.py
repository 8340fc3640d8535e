"""Labels that a model gives to what nobody has labelled."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrec_llm.errors import DataError


@dataclass(frozen=True)
class PseudoLabels:
    """What a model makes of unlabelled examples.

    Attributes:
        labels: float32, of the shape of the probabilities.
        weights: float32 of the same shape: 1 where the model is sure enough, else 0.
    """

    labels: np.ndarray
    weights: np.ndarray

    @property
    def share(self) -> float:
        """Share of the examples that are labelled."""
        return float(self.weights.mean()) if self.weights.size else 0.0


def pseudo_labels(
    probabilities: Any, *, positive: float = 0.9, negative: float = 0.1, soft: bool = False
) -> PseudoLabels:
    """Takes a model's probabilities for labels where it is sure.

    Train on them beside the true labels, with `weights` as sample weights, and repeat with the
    better model. Where positives are rare no probability may come near 0.9: choose `positive`
    and `negative` as quantiles of the probabilities then.

    Args:
        probabilities: Float array in 0..1 of any shape, what `predict` gave.
        positive: Probability from which on an example counts as positive.
        negative: Probability up to which an example counts as negative.
        soft: Whether the label is the probability itself, not 0 or 1.

    Returns:
        `PseudoLabels(labels, weights)`.

    Raises:
        ValueError: If the thresholds are not in order within 0..1.
        DataError: If a probability is NaN or lies outside 0..1.

    Example:
        >>> found = pseudo_labels([0.02, 0.5, 0.97])
        >>> found.labels.tolist(), found.weights.tolist()
        ([0.0, 0.0, 1.0], [1.0, 0.0, 1.0])

    Reference:
        Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method,
        ICML 2013 Workshop on Challenges in Representation Learning
    """
    if not 0.0 <= negative < positive <= 1.0:
        raise ValueError(
            "negative and positive must lie in 0..1, negative below positive, got "
            f"{negative} and {positive}."
        )
    values = np.asarray(probabilities, np.float32)
    wrong = int((~((values >= 0.0) & (values <= 1.0))).sum())
    if wrong:
        raise DataError(
            f"{wrong} of {values.size} probabilities are NaN or lie outside 0..1. Pass what a "
            "model of probabilities predicts."
        )
    sure = (values >= positive) | (values <= negative)
    labels = values if soft else (values >= positive).astype(np.float32)
    return PseudoLabels(labels, sure.astype(np.float32))
