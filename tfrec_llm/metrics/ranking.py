"""Ranking metrics of every user, from the ranks of the targets.

All functions take the targets' ranks, 1 for the best place and `inf` for a target that was not
ranked at all (unseen in training, or removed from the list): such a target stays in the
denominator as a miss. With `offsets` None every rank is a user of its own, the case of one
held-out behaviour a user; otherwise user `u` has the ranks `ranks[offsets[u]:offsets[u + 1]]`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np


def hit_rate(ranks: np.ndarray, k: int, *, offsets: np.ndarray | None = None) -> np.ndarray:
    """Whether any target of the user is among the first `k`.

    Args:
        ranks: Float or integer `[targets]`, the ranks, grouped by user.
        k: Length of the list, 1 or more.
        offsets: Integer `[users + 1]`, where each user's ranks begin; None for one target a user.

    Returns:
        float64 `[users]`, 0 or 1.

    Raises:
        ValueError: If `k` is below 1, a rank is below 1, or a user has no target.

    Example:
        >>> hit_rate(np.array([1, 11, np.inf]), 10)
        array([1., 0., 0.])
    """
    ranks, starts, _ = _grouped(ranks, k, offsets)
    return np.minimum(_sums(ranks <= k, starts), 1.0)


def recall(ranks: np.ndarray, k: int, *, offsets: np.ndarray | None = None) -> np.ndarray:
    """Share of the user's targets that are among the first `k`.

    Args:
        ranks: Float or integer `[targets]`, the ranks, grouped by user.
        k: Length of the list, 1 or more.
        offsets: Integer `[users + 1]`, where each user's ranks begin; None for one target a user.

    Returns:
        float64 `[users]`.

    Raises:
        ValueError: If `k` is below 1, a rank is below 1, or a user has no target.

    Example:
        >>> recall(np.array([1, 20, 3]), 10, offsets=np.array([0, 2, 3]))
        array([0.5, 1. ])
    """
    ranks, starts, sizes = _grouped(ranks, k, offsets)
    return _sums(ranks <= k, starts) / sizes


def precision(ranks: np.ndarray, k: int, *, offsets: np.ndarray | None = None) -> np.ndarray:
    """Share of the first `k` places that hold a target of the user.

    Args:
        ranks: Float or integer `[targets]`, the ranks, grouped by user.
        k: Length of the list, 1 or more.
        offsets: Integer `[users + 1]`, where each user's ranks begin; None for one target a user.

    Returns:
        float64 `[users]`.

    Raises:
        ValueError: If `k` is below 1, a rank is below 1, or a user has no target.

    Example:
        >>> precision(np.array([1, 2, 3]), 5, offsets=np.array([0, 2, 3]))
        array([0.4, 0.2])
    """
    ranks, starts, _ = _grouped(ranks, k, offsets)
    return _sums(ranks <= k, starts) / k


def mrr(ranks: np.ndarray, k: int, *, offsets: np.ndarray | None = None) -> np.ndarray:
    """Reciprocal rank of the user's best target, 0 beyond place `k`.

    Args:
        ranks: Float or integer `[targets]`, the ranks, grouped by user.
        k: Length of the list, 1 or more.
        offsets: Integer `[users + 1]`, where each user's ranks begin; None for one target a user.

    Returns:
        float64 `[users]`.

    Raises:
        ValueError: If `k` is below 1, a rank is below 1, or a user has no target.

    Example:
        >>> mrr(np.array([4, 2, 30]), 10, offsets=np.array([0, 2, 3]))
        array([0.5, 0. ])
    """
    ranks, starts, _ = _grouped(ranks, k, offsets)
    best = ranks if starts is None else np.minimum.reduceat(ranks, starts)
    return np.where(best <= k, 1.0 / best, 0.0)


def ndcg(ranks: np.ndarray, k: int, *, offsets: np.ndarray | None = None) -> np.ndarray:
    """Discounted gain of the targets among the first `k`, divided by the best reachable one.

    A target at rank r gains `1 / log2(1 + r)`; the best list holds the user's targets, as many
    as `k` places take, at its top.

    Args:
        ranks: Float or integer `[targets]`, the ranks, grouped by user.
        k: Length of the list, 1 or more.
        offsets: Integer `[users + 1]`, where each user's ranks begin; None for one target a user.

    Returns:
        float64 `[users]`, from 0 to 1.

    Raises:
        ValueError: If `k` is below 1, a rank is below 1, or a user has no target.

    Example:
        >>> ndcg(np.array([1, 3, 11]), 10)
        array([1. , 0.5, 0. ])

    Reference:
        Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002
    """
    ranks, starts, sizes = _grouped(ranks, k, offsets)
    gains = _sums(np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0), starts)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    return gains / ideal[np.minimum(sizes, k) - 1]


def average_precision(
    ranks: np.ndarray, k: int, *, offsets: np.ndarray | None = None
) -> np.ndarray:
    """Mean over the user's targets of the precision at each target's place.

    Targets beyond place `k` count as 0; the mean is over as many targets as `k` places take.
    Its mean over users is MAP.

    Args:
        ranks: Float or integer `[targets]`, the ranks, grouped by user.
        k: Length of the list, 1 or more.
        offsets: Integer `[users + 1]`, where each user's ranks begin; None for one target a user.

    Returns:
        float64 `[users]`, from 0 to 1.

    Raises:
        ValueError: If `k` is below 1, a rank is below 1, or a user has no target.

    Example:
        >>> average_precision(np.array([4, 1]), 10, offsets=np.array([0, 2]))
        array([0.75])
    """
    ranks, starts, sizes = _grouped(ranks, k, offsets)
    if starts is None:
        return np.where(ranks <= k, 1.0 / ranks, 0.0)
    users = np.repeat(np.arange(len(sizes)), sizes)
    ranks = ranks[np.lexsort((ranks, users))]
    found = np.arange(len(ranks)) - starts[users] + 1
    return _sums(np.where(ranks <= k, found / ranks, 0.0), starts) / np.minimum(sizes, k)


RankingMetric = Callable[..., np.ndarray]

RANKING_METRICS: Mapping[str, RankingMetric] = MappingProxyType(
    {
        "hr": hit_rate,
        "ndcg": ndcg,
        "mrr": mrr,
        "recall": recall,
        "precision": precision,
        "map": average_precision,
    }
)
"""The metrics by the names that reports show, in the order they show them."""


def _grouped(
    ranks: np.ndarray, k: int, offsets: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Returns checked float ranks, where each user begins (None: everywhere), and group sizes."""
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}.")
    ranks = np.asarray(ranks, np.float64)
    if not (ranks >= 1).all():
        raise ValueError("Ranks start at 1; a target that was not ranked has the rank inf.")
    if offsets is None:
        return ranks, None, np.ones(len(ranks), np.int64)
    offsets = np.asarray(offsets, np.int64)
    sizes = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(ranks) or (sizes < 1).any():
        raise ValueError(
            f"offsets must rise from 0 to the {len(ranks)} ranks, each user with a target or more."
        )
    return ranks, offsets[:-1], sizes


def _sums(values: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    values = values.astype(np.float64)
    if starts is None or not len(starts):
        return values
    return np.add.reduceat(values, starts)
