"""The first places of a ranking, and the place that a given item has."""

import numpy as np

# Scores compared at a time: their comparison stays in the processor's cache.
_BLOCK = 1 << 18


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Finds the best `k` columns of every row, the best first.

    Equal scores stand in the order of their columns, so the result is that of a full stable
    sort and repeats. Only the `k` found are sorted.

    Args:
        scores: Float `[n, size]`. `-inf` marks what must not be listed; NaN is taken as `-inf`.
        k: How many to find; more than `size` gives `size`.

    Returns:
        int64 `[n, min(k, size)]`; places that nothing can fill hold -1, at the end.

    Raises:
        ValueError: If `k` is below 1 or `scores` has not two axes.

    Example:
        >>> top_k(np.array([[0.1, 0.9, 0.9], [0.3, -np.inf, -np.inf]]), 2)
        array([[ 1,  2],
               [ 0, -1]])
    """
    if scores.ndim != 2 or k < 1:
        raise ValueError(f"top_k takes [n, size] scores and k >= 1, not {scores.shape} and {k}.")
    n, size = scores.shape
    k = min(k, size)
    if not n or not k:
        return np.zeros((n, k), np.int64)
    rows_at_once = max(1, _BLOCK // size)
    blocks = [_top_k_block(scores[i : i + rows_at_once], k) for i in range(0, n, rows_at_once)]
    return np.concatenate(blocks)


def _top_k_block(scores: np.ndarray, k: int) -> np.ndarray:
    best = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    if np.isnan(best).any():  # NaN sorts above everything
        return _top_k_block(np.where(np.isnan(scores), -np.inf, scores), k)
    least = best.min(axis=1)[:, None]
    above_rows, above_columns = np.nonzero(scores > least)
    tied_rows, tied_columns = np.nonzero(scores == least)
    # Of those that tie for the last places, the lowest columns get them.
    free = k - np.bincount(above_rows, minlength=len(scores))
    first_tied = np.searchsorted(tied_rows, np.arange(len(scores)))
    placed = np.arange(len(tied_rows)) - first_tied[tied_rows] < free[tied_rows]
    rows = np.concatenate((above_rows, tied_rows[placed]))
    columns = np.concatenate((above_columns, tied_columns[placed]))
    found = scores[rows, columns]
    order = np.lexsort((columns, -found, rows))
    columns, found = columns[order].reshape(-1, k), found[order].reshape(-1, k)
    return np.where(found == -np.inf, -1, columns)


def target_ranks(
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    removed: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Finds the place of every target in its row's ranking; ties count against the target.

    The rank is 1 plus the number of other columns that do not score below the target. A NaN
    therefore never helps: as the target's score it ranks last, as another's it ranks above.
    Nothing is sorted and the scores are read once.

    Args:
        scores: Float `[n, size]`; `-inf` marks what is not ranked.
        targets: Integer `[m]`, the targets' columns; a negative one is in no column.
        rows: Integer `[m]`, the row of each target. None when row i has the target i.
        removed: Two integer arrays, rows and columns of places taken out of the ranking, in
            rising order of rows and each place once. A target among them is not ranked.

    Returns:
        float64 `[m]`; `inf` for targets that are not ranked.

    Raises:
        ValueError: If there is neither a row for every target nor a target for every row.

    Example:
        >>> scores = np.array([[0.2, 0.9, 0.2, 0.5], [0.1, 0.2, 0.3, 0.4]])
        >>> target_ranks(scores, np.array([0, -1]))
        array([ 4., inf])
        >>> target_ranks(scores, np.array([0, 1]), removed=(np.array([0]), np.array([1])))
        array([3., 3.])
    """
    targets = np.asarray(targets)
    if len(targets) != len(scores if rows is None else rows):
        raise ValueError(f"{len(targets)} targets do not go with {scores.shape} scores and rows.")
    known = targets >= 0
    columns = np.where(known, targets, 0)
    own = scores[np.arange(len(targets)) if rows is None else rows, columns]
    ranks = (scores.shape[1] - count_below(scores, own, rows=rows)).astype(np.float64)
    ranks[~known | (own == -np.inf)] = np.inf
    if removed is not None:
        _take_out(removed, scores, columns, own, rows, ranks)
    return ranks


def count_below(
    scores: np.ndarray, own: np.ndarray, *, rows: np.ndarray | None = None
) -> np.ndarray:
    """Counts the columns that score below each of some scores.

    Args:
        scores: Float `[n, size]`.
        own: Float `[m]`, what they are compared with.
        rows: Integer `[m]`, the row that each is compared with; None when row i is for score i.

    Returns:
        int64 `[m]`.

    Example:
        >>> count_below(np.array([[0.2, 0.9, 0.5]]), np.array([0.5]))
        array([1])
    """
    below = np.empty(len(own), np.int64)
    at_once = max(1, _BLOCK // max(scores.shape[1], 1))
    for i in range(0, len(own), at_once):
        block = slice(i, i + at_once)
        compared = scores[block if rows is None else rows[block]]
        below[block] = np.count_nonzero(compared < own[block, None], axis=1)
    return below


def _take_out(
    removed: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    columns: np.ndarray,
    own: np.ndarray,
    rows: np.ndarray | None,
    ranks: np.ndarray,
) -> None:
    """Moves ranks up by the removed places that stood before or beside them."""
    removed_rows, removed_columns = removed
    removed_scores = scores[removed_rows, removed_columns]
    if rows is None:
        pair = removed_rows  # the target that each removed place is compared with
    else:
        starts = np.searchsorted(removed_rows, np.arange(len(scores) + 1))
        counts = np.diff(starts)[rows]
        pair = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        places = np.arange(len(pair)) + np.repeat(starts[rows] - (ends - counts), counts)
        removed_columns, removed_scores = removed_columns[places], removed_scores[places]
    before = ~(removed_scores < own[pair])
    ranks -= np.bincount(pair[before], minlength=len(ranks))
    ranks[pair[removed_columns == columns[pair]]] = np.inf
