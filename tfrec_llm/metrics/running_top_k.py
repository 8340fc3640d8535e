"""The best columns of scores that come in blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrec_llm.metrics.top_k import top_k

# A row with more candidates than this many times k in one block is sorted out by `top_k`.
_MANY = 8


class RunningTopK:
    """Keeps the best `k` columns of every row while blocks of columns come by.

    What it holds at the end is what `top_k` finds in all columns at once: equal scores stand in
    the order of their columns.

    Args:
        num_rows: Number of rows.
        k: How many columns to keep of each.

    Attributes:
        columns: int64 `[num_rows, k]`, the best first; -1 where a place is empty.
        scores: float32 `[num_rows, k]`, their scores; `-inf` where a place is empty.

    Example:
        >>> best = RunningTopK(1, 2)
        >>> best.add(0, np.array([[0.1, 0.9]], np.float32))
        >>> best.add(2, np.array([[0.9, 0.3]], np.float32))
        >>> best.columns
        array([[1, 2]])
    """

    def __init__(self, num_rows: int, k: int):
        self.columns = np.full((num_rows, k), -1, np.int64)
        self.scores = np.full((num_rows, k), -np.inf, np.float32)

    def add(
        self, first: int, block: np.ndarray, *, removed: Sequence[Any] = (), only: Any = None
    ) -> None:
        """Takes up the next columns.

        Args:
            first: Column of the block's first one; blocks come in rising order.
            block: float32 `[num_rows, width]`; `-inf` and NaN are never kept. It is only read.
            removed: Places of the block that are not kept, as indexes of it, such as
                `(rows, columns)`.
            only: The places that alone are kept, in the same form; None for all.
        """
        k = self.columns.shape[1]
        if not k or not block.size:
            return
        # Later columns lose ties, so that only a better score than the last one's counts.
        better = block > self.scores[:, -1:]
        for places in removed:
            better[places] = False
        if only is not None:
            kept = np.zeros_like(better)
            kept[only] = better[only]
            better = kept
        many = np.flatnonzero(np.count_nonzero(better, axis=1) > _MANY * k)
        if len(many):
            columns = top_k(np.where(better[many], block[many], -np.inf), k)
            better[many] = False
            rows, places = np.nonzero(columns >= 0)
            better[many[rows], columns[rows, places]] = True
        rows, columns = np.divmod(np.flatnonzero(better), block.shape[1])
        if len(rows):
            self._merge(rows, columns + first, block[rows, columns])

    def _merge(self, rows: np.ndarray, columns: np.ndarray, scores: np.ndarray) -> None:
        """Merges new candidates, in rising order of rows and columns, into the lists."""
        k = self.columns.shape[1]
        changed = np.unique(rows)
        all_rows = np.concatenate((np.repeat(changed, k), rows))
        all_columns = np.concatenate((self.columns[changed].ravel(), columns))
        all_scores = np.concatenate((self.scores[changed].ravel(), scores))
        # The sort is stable: of equal scores the earlier columns, which stand first, stay first.
        order = np.lexsort((-all_scores, all_rows))
        starts = np.searchsorted(all_rows[order], changed)
        kept = order[starts[:, None] + np.arange(k)]
        self.columns[changed] = all_columns[kept]
        self.scores[changed] = all_scores[kept]
