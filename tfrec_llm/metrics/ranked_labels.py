"""Labels in the order of their scores."""

import numpy as np


class RankedLabels:
    """Clicks and other pairs, sorted once by score, to find areas under the ROC curve.

    The area of a group is the weight of its pairs of a click and no click that stand in the
    right order, ties counting half, over the weight of all such pairs. It is exact, and new
    weights, such as the draws of a bootstrap, need no new sorting.

    Args:
        clicked: Boolean `[n]`.
        scores: Float `[n]`, without NaN.
        groups: Integer `[n]`, from 0; None for one group.
        num_groups: How many there are.

    Example:
        >>> ranked = RankedLabels(np.array([False, True, True]), np.array([0.1, 0.1, 0.3]))
        >>> ranked.areas()
        array([0.75])
    """

    def __init__(
        self,
        clicked: np.ndarray,
        scores: np.ndarray,
        groups: np.ndarray | None = None,
        num_groups: int = 1,
    ):
        if groups is None:
            groups = np.zeros(len(scores), np.int64)
            self._order = np.argsort(scores)
        else:
            self._order = np.lexsort((scores, groups))
        groups, scores = groups[self._order], scores[self._order]
        new_group = np.r_[True, groups[1:] != groups[:-1]]
        new_cell = new_group | np.r_[True, scores[1:] != scores[:-1]]
        self._clicked = clicked[self._order].astype(np.float64)
        # A cell holds the pairs of one group that share a score.
        self._cells = np.flatnonzero(new_cell)
        self._groups = np.flatnonzero(new_group[self._cells])
        self._names = groups[self._cells[self._groups]]
        self._num_groups = num_groups

    def areas(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Returns float64 `[num_groups]`; NaN where one of the two classes has no weight.

        Args:
            weights: Float `[n]`, 0 or more; None for equal weights.
        """
        if weights is None:
            clicks, others = self._clicked, 1.0 - self._clicked
        else:
            weights = weights[self._order]
            clicks = weights * self._clicked
            others = weights - clicks
        if len(self._cells) < len(clicks):
            clicks = np.add.reduceat(clicks, self._cells)
            others = np.add.reduceat(others, self._cells)
        all_clicks = np.add.reduceat(clicks, self._groups)
        all_others = np.add.reduceat(others, self._groups)
        below = np.cumsum(others) - 0.5 * others
        ordered = np.add.reduceat(clicks * below, self._groups)
        # What lies below counts from the group's own start.
        ordered -= all_clicks * (np.cumsum(all_others) - all_others)
        pairs = all_clicks * all_others
        areas = np.full(self._num_groups, np.nan)
        areas[self._names] = np.divide(
            ordered, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0
        )
        return areas
