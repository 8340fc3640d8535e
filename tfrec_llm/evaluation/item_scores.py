"""Scores of users over a catalogue, one block of items after the other."""

import abc
from collections.abc import Iterator

import numpy as np

# Scores of a block: 8 MB of float32, so that they are read where they were written, in the cache.
_BLOCK = 1 << 21
# Items of a block at most: their vectors stay in the cache, too.
_WIDEST = 1 << 15


class ItemScores(abc.ABC):
    """Scores of n users over a catalogue, in blocks of items.

    Items are counted from 0 for the first item of the vocabulary.

    Attributes:
        shape: Number of users and of items.
    """

    shape: tuple[int, int]

    @abc.abstractmethod
    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the number of a block's first item and float32 scores `[n, width]`.

        Blocks come in rising order and are equal at every call. The caller only reads them.
        """

    @abc.abstractmethod
    def at(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Returns float32 `[m]` scores of pairs of a user's row and an item.

        They are those of `blocks` up to rounding.
        """

    def whole_rows(self, num_reserved: int = 0) -> np.ndarray:
        """Returns float32 `[n, num_reserved + items]`: all blocks beside each other.

        Args:
            num_reserved: Columns of `-inf` before them, as `Scorer.score` has them.
        """
        scores = np.empty((self.shape[0], num_reserved + self.shape[1]), np.float32)
        scores[:, :num_reserved] = -np.inf
        for first, block in self.blocks():
            start = num_reserved + first
            scores[:, start : start + block.shape[1]] = block
        return scores


class WholeScores(ItemScores):
    """Scores that are there already.

    Args:
        scores: float32 `[n, items]`. They are only read.

    Example:
        >>> scores = WholeScores(np.array([[0.1, 0.2, 0.3]], np.float32))
        >>> scores.at(np.array([0]), np.array([2]))
        array([0.3], dtype=float32)
    """

    def __init__(self, scores: np.ndarray):
        self._scores = scores
        self.shape = (scores.shape[0], scores.shape[1])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        width = block_width(*self.shape)
        for first in range(0, self.shape[1], width):
            yield first, self._scores[:, first : first + width]

    def at(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        return self._scores[rows, items]


class RowsReplaced(ItemScores):
    """Scores of which some users' are the same values for all of them.

    Args:
        scores: The scores of the others.
        rows: Integer `[m]`, the users whose scores are replaced.
        values: float32 `[items]`, by what.

    Example:
        >>> scores = WholeScores(np.zeros((2, 3), np.float32))
        >>> RowsReplaced(scores, np.array([1]), np.arange(3, dtype=np.float32)).whole_rows()
        array([[0., 0., 0.],
               [0., 1., 2.]], dtype=float32)
    """

    def __init__(self, scores: ItemScores, rows: np.ndarray, values: np.ndarray):
        self._scores = scores
        self._rows = rows
        self._values = values
        self.shape = scores.shape

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        for first, block in self._scores.blocks():
            block = block.copy()
            block[self._rows] = self._values[first : first + block.shape[1]]
            yield first, block

    def at(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        replaced = np.isin(rows, self._rows)
        return np.where(replaced, self._values[items], self._scores.at(rows, items))


class Places:
    """Pairs of a row and an item, to be found again in blocks of items.

    Args:
        rows: Integer `[m]`.
        items: Integer `[m]`.
    """

    def __init__(self, rows: np.ndarray, items: np.ndarray):
        order = np.argsort(items, kind="stable")
        self._rows = rows[order]
        self._items = items[order]

    def within(self, first: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and columns of the pairs in a block that begins with item `first`."""
        bounds = np.searchsorted(self._items, (first, first + block.shape[1]))
        here = slice(*bounds)
        return self._rows[here], self._items[here] - first


class Columns:
    """Items of all rows, to be found again in blocks of items.

    Args:
        items: Integer `[m]`, rising.
    """

    def __init__(self, items: np.ndarray):
        self._items = items

    def within(self, first: int, block: np.ndarray) -> tuple[slice, np.ndarray]:
        """Returns an index of the items in a block that begins with item `first`."""
        bounds = np.searchsorted(self._items, (first, first + block.shape[1]))
        return slice(None), self._items[slice(*bounds)] - first


def block_width(num_users: int, num_items: int) -> int:
    """Returns how many items make a block for that many users, a multiple of 64."""
    wanted = min(num_items, _WIDEST, max(_BLOCK // max(num_users, 1), 256))
    return max(1, -(-wanted // 64)) * 64
