"""Places of targets among scores that come in blocks."""

import numpy as np

from tfrec_llm.metrics.top_k import count_below


class RunningRanks:
    """Counts the place of every target while blocks of columns come by.

    `ranks()` at the end is what `target_ranks` finds in all columns at once.

    Args:
        own: float32 `[m]`, the targets' scores.
        targets: Integer `[m]`, their columns; a negative one is in no column.
        rows: Integer `[m]`, rising, the row of each target; None when row i has the target i.
        removed: Rows and columns of places taken out of the ranking, rows rising, each once.

    Attributes:
        found: float32 `[m]`, the targets' scores as the blocks had them. Where they are not
            those given as `own`, the ranks are to be counted again with them.

    Example:
        >>> ranks = RunningRanks(np.array([0.9], np.float32), np.array([1]))
        >>> ranks.add(0, np.array([[0.1, 0.9]], np.float32))
        >>> ranks.add(2, np.array([[0.9, 0.3]], np.float32))
        >>> ranks.ranks()
        array([2.])
    """

    def __init__(
        self,
        own: np.ndarray,
        targets: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        removed: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.own = np.where(targets >= 0, own, -np.inf).astype(np.float32)
        self.found = self.own.copy()
        self._targets = targets
        self._rows = rows
        self._before = np.zeros(len(targets), np.int64)
        self._removed = np.zeros(len(targets), bool)
        self._target_order = np.argsort(targets, kind="stable")
        if removed is None:
            removed = np.zeros(0, np.int64), np.zeros(0, np.int64)
        pairs, places = _pairs(removed[0], np.arange(len(targets)) if rows is None else rows)
        order = np.argsort(removed[1][places], kind="stable")
        self._removed_pairs = pairs[order]
        self._removed_rows = removed[0][places[order]]
        self._removed_columns = removed[1][places[order]]
        taken_out = self._removed_columns == targets[self._removed_pairs]
        self._removed[self._removed_pairs[taken_out]] = True

    def add(self, first: int, block: np.ndarray) -> None:
        """Counts the columns of a block.

        Args:
            first: Column of the block's first one.
            block: float32 `[rows, width]`. It is only read.
        """
        stop = first + block.shape[1]
        self._before += block.shape[1] - count_below(block, self.own, rows=self._rows)
        places = slice(*np.searchsorted(self._removed_columns, (first, stop)))
        pairs = self._removed_pairs[places]
        scores = block[self._removed_rows[places], self._removed_columns[places] - first]
        self._before -= np.bincount(pairs[~(scores < self.own[pairs])], minlength=len(self.own))
        bounds = np.searchsorted(self._targets, (first, stop), sorter=self._target_order)
        here = self._target_order[slice(*bounds)]
        rows = here if self._rows is None else self._rows[here]
        self.found[here] = block[rows, self._targets[here] - first]

    def exact(self) -> bool:
        """Returns whether the blocks had the very scores that were given as `own`."""
        return np.array_equal(self.found, self.own, equal_nan=True)

    def ranks(self) -> np.ndarray:
        """Returns float64 `[m]`; `inf` for targets that are not ranked."""
        ranks = self._before.astype(np.float64)
        ranks[(self.own == -np.inf) | self._removed] = np.inf
        return ranks


def _pairs(removed_rows: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for every target and removed place of one row, the numbers of the two."""
    starts = np.searchsorted(removed_rows, rows, side="left")
    counts = np.searchsorted(removed_rows, rows, side="right") - starts
    ends = np.cumsum(counts)
    pairs = np.repeat(np.arange(len(rows)), counts)
    return pairs, np.arange(len(pairs)) + np.repeat(starts - (ends - counts), counts)
