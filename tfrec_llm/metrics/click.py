"""Metrics of predicted probabilities of clicks."""

import numpy as np


def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the chance that a click is ranked above a pair that was no click.

    The exact area under the ROC curve by ranks, not an approximation by
    thresholds. Ties count half.

    Args:
        labels: `[n]`; above 0.5 is a click.
        probabilities: Float `[n]`.

    Returns:
        The area, 0.5 for a constant score; NaN where one of the two classes
        is missing.

    Example:
        >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
        0.875
    """
    clicked = np.asarray(labels) > 0.5
    num_clicks = int(clicked.sum())
    num_others = len(clicked) - num_clicks
    if not num_clicks or not num_others:
        return float("nan")
    _, place, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    # The mean rank, counted from 1, of the pairs that share a value.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    above = ranks[place[clicked]].sum() - num_clicks * (num_clicks + 1) / 2
    return float(above / (num_clicks * num_others))


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the share of pairs whose probability lies on the label's side of 0.5.

    Args:
        labels: `[n]`; above 0.5 is a click.
        probabilities: Float `[n]`.

    Example:
        >>> accuracy(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.8]))
        0.75
    """
    return float(np.mean((np.asarray(labels) > 0.5) == (np.asarray(probabilities) > 0.5)))
