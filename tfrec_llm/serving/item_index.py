"""Search for the items whose vectors have the greatest products with a user's."""

import abc
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfrec_llm.errors import SavedModelError


@dataclass(frozen=True)
class Nearest:
    """The best items for n queries, the best first.

    Attributes:
        items: int64 `[n, k]`; -1 where nothing is left.
        scores: float32 `[n, k]`; `-inf` there.
    """

    items: np.ndarray
    scores: np.ndarray


class ItemIndex(abc.ABC):
    """Finds items by their vectors; they come and go without a rebuild.

    Items are whole numbers of 0 or more, such as indexes of a vocabulary.

    Args:
        emb_dim: Width of the vectors.

    Example:
        >>> index = ExactIndex(2)
        >>> index.add(np.array([7, 9]), np.eye(2, dtype=np.float32))
        >>> index.search(np.array([[0.2, 0.5]], np.float32), 1).items
        array([[9]])
    """

    kind: str

    def __init__(self, emb_dim: int):
        if emb_dim < 1:
            raise ValueError(f"emb_dim must be positive, got {emb_dim}.")
        self.emb_dim = emb_dim

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of items."""

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        """Adds items; those that are there already get new vectors.

        Args:
            items: Integer `[m]`, each once.
            vectors: float32 `[m, emb_dim]`.

        Raises:
            ValueError: If they do not fit together.
        """
        items = np.asarray(items, np.int64)
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(items), self.emb_dim):
            raise ValueError(
                f"{len(items)} items need vectors of shape ({len(items)}, {self.emb_dim}), got "
                f"{vectors.shape}."
            )
        if len(np.unique(items)) < len(items) or (items < 0).any():
            raise ValueError("items are whole numbers of 0 or more, each once.")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors hold numbers that are not finite.")
        self.remove(items)
        self._add(items, vectors)

    @abc.abstractmethod
    def _add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        """Adds items that are not there."""

    @abc.abstractmethod
    def remove(self, items: np.ndarray) -> int:
        """Takes items out, and returns how many were there."""

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        only: np.ndarray | None = None,
        without: Sequence[np.ndarray] | None = None,
    ) -> Nearest:
        """Returns the items with the greatest products.

        Args:
            queries: float32 `[n, emb_dim]`.
            k: How many.
            only: Integer `[m]`, the items to choose from; None for all.
            without: Of each query the items to leave out, integer `[...]`; None for none.

        Raises:
            ValueError: If shapes do not fit or `k` is below 1.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.emb_dim:
            raise ValueError(f"queries have the shape [n, {self.emb_dim}], not {queries.shape}.")
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}.")
        if without is not None and len(without) != len(queries):
            raise ValueError(
                f"{len(without)} lists of items were given for {len(queries)} queries."
            )
        left_out = [np.unique(np.asarray(own, np.int64)) for own in without or ()]
        # So many more are found, that enough are left.
        wanted = min(k + max(map(len, left_out), default=0), max(len(self), 1))
        if only is not None:
            only = np.unique(np.asarray(only, np.int64))
        found = self._search(queries, wanted, only)
        items = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for row in range(len(queries)):
            kept = found.items[row] >= 0
            if left_out:
                kept &= ~np.isin(found.items[row], left_out[row])
            own = np.flatnonzero(kept)[:k]
            items[row, : len(own)] = found.items[row, own]
            scores[row, : len(own)] = found.scores[row, own]
        return Nearest(items, scores)

    @abc.abstractmethod
    def _search(self, queries: np.ndarray, k: int, only: np.ndarray | None) -> Nearest:
        """Returns the best `k`; `only` rises."""

    @abc.abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file."""


class ExactIndex(ItemIndex):
    """Compares a query with all items, one block after the other.

    Items of equal scores stand in the order they were added.

    Args:
        emb_dim: Width of the vectors.

    Example:
        >>> index = ExactIndex(2)
        >>> index.add(np.arange(3), np.array([[1, 0], [0, 1], [1, 1]], np.float32))
        >>> index.search(np.array([[1.0, 0.5]], np.float32), 2, without=[[2]]).items
        array([[0, 1]])
    """

    kind = "exact"

    def __init__(self, emb_dim: int):
        super().__init__(emb_dim)
        self._items = np.zeros(0, np.int64)
        self._vectors = np.zeros((0, emb_dim), np.float32)

    def __len__(self) -> int:
        return len(self._items)

    def _add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        self._items = np.concatenate([self._items, items])
        self._vectors = np.concatenate([self._vectors, vectors])

    def remove(self, items: np.ndarray) -> int:
        kept = ~np.isin(self._items, items)
        if kept.all():
            return 0
        self._items, self._vectors = self._items[kept], self._vectors[kept]
        return int(np.count_nonzero(~kept))

    def _search(self, queries: np.ndarray, k: int, only: np.ndarray | None) -> Nearest:
        # Keras is imported by it, which those who only load an index need not wait for.
        from tfrec_llm.evaluation.item_scores import block_width
        from tfrec_llm.metrics.running_top_k import RunningTopK

        items, vectors = self._items, self._vectors
        if only is not None:
            places = np.flatnonzero(np.isin(items, only))
            items, vectors = items[places], vectors[places]
        best = RunningTopK(len(queries), k)
        width = block_width(len(queries), len(items))
        for first in range(0, len(items), width):
            best.add(first, queries @ vectors[first : first + width].T)
        found = np.where(best.columns >= 0, items[best.columns] if len(items) else -1, -1)
        return Nearest(found, best.scores)

    def save(self, path: str | os.PathLike[str]) -> None:
        with open(path, "wb") as file:
            np.savez(file, items=self._items, vectors=self._vectors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ExactIndex":
        """Reads what `save` wrote.

        Raises:
            SavedModelError: If the file is missing or damaged.
        """
        try:
            with np.load(path) as arrays:
                index = cls(arrays["vectors"].shape[1])
                index._add(arrays["items"], arrays["vectors"])
        except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
            raise SavedModelError(f"{os.fspath(path)} holds no index: {error}") from error
        return index
