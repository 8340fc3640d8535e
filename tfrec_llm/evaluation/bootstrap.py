"""Means over users resampled with replacement."""

import numpy as np

# Users drawn at a time: about 100 MB of work space.
_DRAWS = 1 << 22


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
    rng = np.random.default_rng(seed)
    users = len(values)
    valid = ~np.isnan(values)
    everywhere = bool(valid.all())
    values = np.where(valid, values, 0.0)
    means = np.empty((resamples, values.shape[1]))
    at_once = max(1, _DRAWS // max(users, 1))
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, users, (rows, users)) if users else np.empty((rows, 0), int)
        drawn += users * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        weights = times.astype(np.float64)
        sums = weights @ values
        sizes = np.full_like(sums, users) if everywhere else weights @ valid.astype(np.float64)
        means[start : start + rows] = np.divide(
            sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0
        )
    return means


def percentile_interval(means: np.ndarray, confidence: float) -> np.ndarray:
    """The middle share `confidence` of the resampled means.

    Args:
        means: Float `[resamples, metrics]`.
        confidence: Between 0 and 1, such as 0.95.

    Returns:
        float64 `[metrics, 2]`: low and high.

    Raises:
        ValueError: If `confidence` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, not {confidence}.")
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0).T
