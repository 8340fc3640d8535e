"""How alike items are: by one value, by the words they share, or by their vectors."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tfrec_llm.data.packing import ranges


class Likeness(Protocol):
    """How alike the items of lists are.

    Attributes:
        width: Numbers that an item takes in memory, about.
    """

    width: int

    def among(self, items: np.ndarray) -> "Among":
        """Makes ready for lists of items, int `[n, places]`, counted from the first."""
        ...


class Among(Protocol):
    """How alike the items of given lists are."""

    def to(self, places: np.ndarray) -> np.ndarray:
        """Returns how like every item is to one of its list, `[n, places]`.

        Args:
            places: int `[n]`, where in each list that one stands.
        """
        ...


class SameValue:
    """Alike, by 1, are items of the same value; items without a value are like nothing.

    Args:
        codes: int `[items]`, the number of each item's value; -1 for none.

    Example:
        >>> likeness = SameValue(np.array([7, 8, 7, -1]))
        >>> likeness.among(np.array([[0, 1, 2, 3]])).to(np.array([0]))
        array([[1., 0., 1., 0.]], dtype=float32)
    """

    width = 1

    def __init__(self, codes: np.ndarray):
        self._codes = codes

    def among(self, items: np.ndarray) -> "Among":
        return _SameValueAmong(self._codes[items])


class _SameValueAmong:
    def __init__(self, codes: np.ndarray):
        self._codes = codes

    def to(self, places: np.ndarray) -> np.ndarray:
        own = np.take_along_axis(self._codes, places[:, None], axis=1)
        return ((self._codes == own) & (own >= 0)).astype(np.float32)


class SharedWords:
    """Alike are items by the words of both over the words of either (Jaccard).

    Args:
        words: int `[flat]`, numbers of the words, item after item, each once an item.
        offsets: int `[items + 1]`, where each item's words begin.

    Example:
        >>> likeness = SharedWords(np.array([0, 1, 1, 2, 1]), np.array([0, 2, 4, 5, 5]))
        >>> likeness.among(np.array([[0, 1, 2, 3]])).to(np.array([0])).round(2)
        array([[1.  , 0.33, 0.5 , 0.  ]], dtype=float32)
    """

    def __init__(self, words: np.ndarray, offsets: np.ndarray):
        self._words = words
        self._offsets = offsets
        self.width = max(1, round(len(words) / max(len(offsets) - 1, 1)))

    def among(self, items: np.ndarray) -> "Among":
        return _SharedWordsAmong(items, self._words, self._offsets)


class _SharedWordsAmong:
    def __init__(self, items: np.ndarray, words: np.ndarray, offsets: np.ndarray):
        count = items.shape[1]
        starts = offsets[items].ravel()
        self._sizes = (offsets[items + 1] - offsets[items]).ravel()
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._cells = np.repeat(np.arange(items.size), self._sizes)
        # A word of one list is another than the same word of another list.
        pairs = words[ranges(starts, self._sizes)] + (self._cells // count) * (
            words.max(initial=0) + 1
        )
        unique, self._pairs = np.unique(pairs, return_inverse=True)
        self._num_pairs = len(unique)
        self._shape = items.shape

    def to(self, places: np.ndarray) -> np.ndarray:
        chosen = np.arange(len(places)) * self._shape[1] + places
        marked = np.zeros(self._num_pairs, bool)
        marked[self._pairs[ranges(self._starts[chosen], self._sizes[chosen])]] = True
        cells = self._cells[marked[self._pairs]]
        both = np.bincount(cells, minlength=len(self._sizes)).reshape(self._shape)
        sizes = self._sizes.reshape(self._shape)
        either = sizes + self._sizes[chosen][:, None] - both
        return (both / np.maximum(either, 1)).astype(np.float32)


class Cosine:
    """Alike are items by the cosine of their vectors; a zero vector is like nothing.

    Args:
        vectors: Gives float `[m, width]` vectors of int `[m]` items.
        width: Numbers of a vector.

    Example:
        >>> likeness = Cosine(lambda items: np.eye(3, 2)[items], 2)
        >>> likeness.among(np.array([[0, 1, 2]])).to(np.array([0]))
        array([[1., 0., 0.]], dtype=float32)
    """

    def __init__(self, vectors: Callable[[np.ndarray], np.ndarray], width: int):
        self._vectors = vectors
        self.width = width

    def among(self, items: np.ndarray) -> "Among":
        unique, places = np.unique(items, return_inverse=True)
        vectors = np.asarray(self._vectors(unique), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return _CosineAmong(unit[places.reshape(items.shape)])


class _CosineAmong:
    def __init__(self, unit: np.ndarray):
        self._unit = unit

    def to(self, places: np.ndarray) -> np.ndarray:
        own = self._unit[np.arange(len(places)), places]
        return np.matmul(self._unit, own[:, :, None])[:, :, 0]
