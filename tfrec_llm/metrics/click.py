"""Metrics of predicted probabilities of clicks."""

from typing import Any

import numpy as np

from tfrec_llm.data.labels import as_labels, as_probabilities, as_scores, as_weights
from tfrec_llm.metrics.ranked_labels import RankedLabels


def auc(labels: Any, probabilities: Any, *, weights: Any = None) -> float:
    """Returns the chance that a click is ranked above a pair that was no click.

    The exact area under the ROC curve by ranks, not an approximation by
    thresholds. Ties count half.

    Args:
        labels: `[n]` in 0..1; above 0.5 is a click.
        probabilities: Float `[n]`; scores of any range do, too.
        weights: Float `[n]`, 0 or more, such as how often each pair was shown; None for equal
            ones.

    Returns:
        The area, 0.5 for a constant score; NaN where one of the two classes
        is missing.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN.

    Example:
        >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
        0.875
    """
    labels = as_labels(labels)
    scores = as_scores(probabilities, len(labels), name="probabilities")
    weights = as_weights(weights, len(labels))
    return float(RankedLabels(labels > 0.5, scores).areas(weights)[0])


def accuracy(labels: Any, probabilities: Any) -> float:
    """Returns the share of pairs whose probability lies on the label's side of 0.5.

    Args:
        labels: `[n]` in 0..1; above 0.5 is a click.
        probabilities: Float `[n]`.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN or outside 0..1.

    Example:
        >>> accuracy(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.8]))
        0.75
    """
    labels = as_labels(labels)
    return float(np.mean((labels > 0.5) == (as_probabilities(probabilities, len(labels)) > 0.5)))


def log_loss(labels: Any, probabilities: Any, *, weights: Any = None) -> float:
    """Returns the mean of `-y log(p) - (1 - y) log(1 - p)`, in nats.

    Probabilities count as at least `eps` and at most `1 - eps`, where `eps` is the distance from 1
    to the next number of their dtype (1.2e-7 for float32), so that one sure error costs much and
    not everything.

    Args:
        labels: `[n]` in 0..1, 1 for a click.
        probabilities: Float `[n]`.
        weights: Float `[n]`, 0 or more; None for equal ones.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN or outside 0..1.

    Example:
        >>> round(log_loss([1, 0], [0.5, 0.5]), 4)
        0.6931
    """
    labels = as_labels(labels)
    probabilities = as_probabilities(probabilities, len(labels))
    weights = as_weights(weights, len(labels))
    return float(np.average(log_losses(labels, probabilities), weights=weights))


def normalized_entropy(labels: Any, probabilities: Any, *, weights: Any = None) -> float:
    """Returns the log loss over that of predicting the base rate for every pair.

    It tells how well features predict whatever the base rate is, where the log loss alone is
    low for rare clicks.

    Args:
        labels: `[n]` in 0..1, 1 for a click.
        probabilities: Float `[n]`.
        weights: Float `[n]`, 0 or more; None for equal ones.

    Returns:
        1 for a model no better than the base rate, 0 for one that is always right and sure; NaN
        where one of the two classes is missing.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN or outside 0..1.

    Example:
        >>> normalized_entropy([1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25])
        1.0

    Reference:
        He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014
    """
    labels = as_labels(labels)
    rate = np.average(labels, weights=as_weights(weights, len(labels)))
    return log_loss(labels, probabilities, weights=weights) / float(entropy(rate))


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the float64 `[n]` losses whose mean is `log_loss`."""
    least = float(np.finfo(probabilities.dtype).eps)
    clipped = np.clip(probabilities.astype(np.float64), least, 1.0 - least)
    return -labels * np.log(clipped) - (1.0 - labels) * np.log1p(-clipped)


def entropy(rate: Any) -> Any:
    """Returns the log loss of always predicting a rate, where that rate is true; NaN at 0 and 1.

    Args:
        rate: Number or float array in 0..1.
    """
    rate = np.asarray(rate, np.float64)
    inside = np.where((rate > 0) & (rate < 1), rate, np.nan)
    return -inside * np.log(inside) - (1.0 - inside) * np.log1p(-inside)
