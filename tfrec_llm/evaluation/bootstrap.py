"""Means over users resampled with replacement."""

from collections.abc import Iterator

import numpy as np

# Users drawn at a time: their counts stay in the processor's cache.
_DRAWS = 1 << 18


def bootstrap_means(values: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Means of many resamples of the users, each as large as the original.

    All columns see the same resamples, so differences of columns are paired.

    Args:
        values: Float `[users, metrics]`; NaN where a user has no value, which its mean leaves out.
        resamples: How many resamples to draw.
        seed: Seed of the draw.

    Returns:
        float64 `[resamples, metrics]`.

    Example:
        >>> means = bootstrap_means(np.array([[0.0], [1.0], [1.0]]), resamples=2000)
        >>> float(means.mean().round(2))
        0.67

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993
    """
    users = len(values)
    valid = ~np.isnan(values)
    everywhere = bool(valid.all())
    values = np.where(valid, values, 0.0)
    means = []
    for times in bootstrap_times(users, resamples=resamples, seed=seed):
        sums = times @ values
        sizes = np.full_like(sums, users) if everywhere else times @ valid.astype(np.float64)
        means.append(np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0))
    return np.concatenate(means)


def bootstrap_times(users: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each user is drawn in every resample.

    Args:
        users: How many there are, and how many are drawn.
        resamples: How many resamples to draw.
        seed: Seed of the draw.

    Yields:
        float64 `[some, users]`, a row a resample, a few at a time.

    Example:
        >>> [times.sum(axis=1).tolist() for times in bootstrap_times(3, resamples=2, seed=0)]
        [[3.0, 3.0]]
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS // max(users, 1))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, users, (rows, users)) if users else np.empty((rows, 0), int)
        drawn += users * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * users)
        yield times.reshape(rows, users).astype(np.float64)


def percentile_interval(means: np.ndarray, confidence: float) -> np.ndarray:
    """The middle share `confidence` of the resampled means.

    Args:
        means: Float `[resamples, metrics]`; NaN where a resample has no value, which is left out.
        confidence: Between 0 and 1, such as 0.95.

    Returns:
        float64 `[metrics, 2]`: low and high.

    Raises:
        ValueError: If `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, not {confidence}.")
    tail = (1 - confidence) / 2
    bounds = np.full((means.shape[1], 2), np.nan)
    for column in range(means.shape[1]):
        found = means[~np.isnan(means[:, column]), column]
        if len(found):
            bounds[column] = np.quantile(found, [tail, 1 - tail])
    return bounds
