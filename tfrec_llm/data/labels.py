"""Labels of impressions, and the probabilities and weights that go with them."""

from typing import Any

import numpy as np

from tfrec_llm.errors import DataError


def as_labels(labels: Any) -> np.ndarray:
    """Returns labels as float64 `[n]`.

    Args:
        labels: `[n]` or `[n, 1]` in 0..1, 1 for a click; booleans, an Arrow column or a list, too.

    Raises:
        DataError: If there are none, one is missing or NaN, or lies outside 0..1.

    Example:
        >>> as_labels([True, False])
        array([1., 0.])
    """
    labels = np.asarray(labels)
    rows = len(labels) if labels.ndim else 0
    if not rows:
        raise DataError("There are no labels, so there is nothing to train on or to evaluate.")
    if labels.size != rows:
        raise DataError(f"labels must be one a pair, [rows], got the shape {labels.shape}.")
    labels = _numbers("labels", labels).ravel()
    missing = int(np.isnan(labels).sum())
    if missing:
        raise DataError(f"{missing} of {rows} labels are NaN. Leave these pairs out.")
    outside = labels[(labels < 0) | (labels > 1)]
    if len(outside):
        raise DataError(
            f"Labels must lie in 0..1, 1 for a click, but {len(outside)} of {rows} do not, first "
            f"{outside[0]:g}."
        )
    return labels


def as_scores(scores: Any, rows: int, *, name: str = "scores") -> np.ndarray:
    """Returns scores as `[rows]`: float32 where they are, else float64.

    Args:
        scores: `[rows]` or `[rows, 1]`, any numbers, infinite ones included.
        rows: How many labels there are.
        name: What messages call them.

    Raises:
        DataError: If their number is another, or one is NaN.

    Example:
        >>> as_scores([[3], [1]], 2)
        array([3., 1.])
    """
    scores = np.asarray(scores)
    if scores.size != rows or scores.shape[:1] != (rows,):
        raise DataError(
            f"{name} must be one a pair, [rows], but their shape is {scores.shape} for {rows} "
            "labels."
        )
    scores = scores if scores.dtype == np.float32 else _numbers(name, scores)
    missing = int(np.isnan(scores).sum())
    if missing:
        raise DataError(f"{missing} of {rows} {name} are NaN. A model that gives NaN diverged.")
    return scores.ravel()


def as_probabilities(probabilities: Any, rows: int) -> np.ndarray:
    """Returns probabilities as `[rows]`: float32 where they are, else float64.

    Args:
        probabilities: `[rows]` or `[rows, 1]` in 0..1.
        rows: How many labels there are.

    Raises:
        DataError: If their number is another, one is NaN, or lies outside 0..1.

    Example:
        >>> as_probabilities([0.5, 1.5], 2)
        Traceback (most recent call last):
        tfrec_llm.errors.DataError: probabilities must lie in 0..1, but 1 of 2 do not, first 1.5...
    """
    probabilities = as_scores(probabilities, rows, name="probabilities")
    outside = probabilities[(probabilities < 0) | (probabilities > 1)]
    if len(outside):
        raise DataError(
            f"probabilities must lie in 0..1, but {len(outside)} of {rows} do not, first "
            f"{outside[0]:g}. Pass logits through a sigmoid first."
        )
    return probabilities


def as_weights(weights: Any, rows: int) -> np.ndarray:
    """Returns weights as float64 `[rows]`; ones where there are none.

    Args:
        weights: `[rows]` or `[rows, 1]`, 0 or more; None for equal weights.
        rows: How many labels there are.

    Raises:
        DataError: If their number is another, one is negative, NaN or infinite, or all are 0.

    Example:
        >>> as_weights(None, 2)
        array([1., 1.])
    """
    if weights is None:
        return np.ones(rows)
    weights = as_scores(weights, rows, name="weights").astype(np.float64)
    wrong = weights[(weights < 0) | np.isinf(weights)]
    if len(wrong):
        raise DataError(
            f"weights must be finite and 0 or more, but {len(wrong)} of {rows} are not, first "
            f"{wrong[0]:g}."
        )
    if not weights.any():
        raise DataError(f"All {rows} weights are 0, so nothing is left to measure.")
    return weights


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be numbers: {error}.") from error
