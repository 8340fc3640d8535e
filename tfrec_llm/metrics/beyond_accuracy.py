"""What a set of recommendations is like, besides whether it hits: breadth, novelty, diversity.

Lists are integer `[n, k]` arrays of item indexes, one list a row; -1 marks an empty place.
"""

import numpy as np


def exposure(lists: np.ndarray, size: int) -> np.ndarray:
    """Counts how many lists show each item.

    Exposures of several chunks of lists add up, so a whole evaluation needs one array.

    Args:
        lists: Integer `[n, k]`, item indexes; -1 where a place is empty.
        size: Number of indexes.

    Returns:
        int64 `[size]`.

    Example:
        >>> exposure(np.array([[0, 2], [2, -1]]), 4)
        array([1, 0, 2, 0])
    """
    lists = np.asarray(lists)
    return np.bincount(lists[lists >= 0], minlength=size)


def catalogue_coverage(exposures: np.ndarray) -> float:
    """Share of the catalogue that is shown to anybody.

    Args:
        exposures: Integer `[items]`, how many lists show each item of the catalogue.

    Example:
        >>> catalogue_coverage(np.array([3, 0, 1, 0]))
        0.5
    """
    return float(np.count_nonzero(exposures) / len(exposures)) if len(exposures) else 0.0


def gini(exposures: np.ndarray) -> float:
    """How unequally the lists' places are shared out among the items of the catalogue.

    Args:
        exposures: Integer `[items]`, how many lists show each item of the catalogue.

    Returns:
        0 where every item is shown equally often, near 1 where one item takes every place.

    Example:
        >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
        (0.0, 0.75)
    """
    items, total = len(exposures), int(np.sum(exposures))
    if not total:
        return 0.0
    places = np.arange(1, items + 1)
    return float(np.sum((2 * places - items - 1) * np.sort(exposures)) / (items * total))


def popularity_bias(lists: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean popularity percentile of each list's items.

    An item's percentile is the share of the catalogue that is less popular, plus half the share
    that is equally popular: lists drawn evenly from the catalogue have 0.5 on average.

    Args:
        lists: Integer `[n, k]`, item indexes; -1 where a place is empty.
        counts: Integer `[items]`, how often each item was chosen in training.

    Returns:
        float64 `[n]`, from 0 (the least popular items) to 1; NaN for an empty list.

    Example:
        >>> popularity_bias(np.array([[0, 1], [2, -1]]), np.array([9, 5, 1, 1]))
        array([0.75, 0.25])
    """
    ordered = np.sort(counts)
    below = np.searchsorted(ordered, counts, side="left")
    not_above = np.searchsorted(ordered, counts, side="right")
    return _list_means(lists, (below + not_above) / (2 * len(ordered)))


def novelty(lists: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean self-information of each list's items, in bits.

    An item chosen in a share p of all training behaviours carries `-log2(p)` bits. An item that
    was never chosen is taken as chosen once.

    Args:
        lists: Integer `[n, k]`, item indexes; -1 where a place is empty.
        counts: Integer `[items]`, how often each item was chosen in training.

    Returns:
        float64 `[n]`; NaN for an empty list.

    Example:
        >>> novelty(np.array([[0, 1], [2, -1]]), np.array([8, 4, 4]))
        array([1.5, 2. ])

    Reference:
        Zhou et al., Solving the apparent diversity-accuracy dilemma, PNAS 2010
    """
    chosen = np.maximum(np.asarray(counts, np.float64), 1.0)
    return _list_means(lists, np.log2(max(np.sum(counts), 1)) - np.log2(chosen))


def intra_list_diversity(lists: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean difference of the pairs of items in each list.

    Args:
        lists: Integer `[n, k]`, item indexes; -1 where a place is empty.
        features: What tells items apart. Float `[items, dim]` vectors: two items differ by 1
            minus their cosine (a zero vector by 1 from everything). Integer `[items]` codes of a
            category: they differ by 1 when the categories do.

    Returns:
        float64 `[n]`; NaN for a list of fewer than two items.

    Example:
        >>> lists = np.array([[0, 1, 2], [0, 1, -1]])
        >>> intra_list_diversity(lists, np.array([7, 7, 8])).round(3)
        array([0.667, 0.   ])

    Reference:
        Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005
    """
    lists, features = np.asarray(lists), np.asarray(features)
    filled = lists >= 0
    items = filled.sum(axis=1)
    pairs = items * (items - 1.0)
    if features.ndim == 1:
        codes = features[lists]
        same = (codes[:, :, None] == codes[:, None, :]) & filled[:, :, None] & filled[:, None, :]
        alike = same.sum(axis=(1, 2)) - items.astype(np.float64)
    else:
        # The cosines of all pairs add up to the squared length of the sum of unit vectors.
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        unit = np.divide(features, lengths, out=np.zeros(features.shape), where=lengths > 0)
        listed = unit[lists] * filled[:, :, None]
        alike = np.square(listed.sum(axis=1)).sum(axis=1) - np.square(listed).sum(axis=(1, 2))
    alike = np.divide(alike, pairs, out=np.full(len(lists), np.nan), where=pairs > 0)
    return 1.0 - alike


def _list_means(lists: np.ndarray, values: np.ndarray) -> np.ndarray:
    lists = np.asarray(lists)
    filled = lists >= 0
    items = filled.sum(axis=1)
    sums = np.where(filled, values[lists], 0.0).sum(axis=1)
    return np.divide(sums, items, out=np.full(len(lists), np.nan), where=items > 0)
