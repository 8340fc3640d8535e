"""Scores that are products of vectors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from tfrec_llm.evaluation.item_scores import ItemScores, block_width


class ProductScores(ItemScores):
    """Scores that are products of users' vectors with items' vectors.

    Equal vectors get equal scores: every product has a width that is a multiple of 64. Of other
    widths a processor rounds the last columns in its own way, and what should tie would not.

    Args:
        users: float32 `[n, emb_dim]`.
        items: What gives float32 `[m, emb_dim]` vectors by `items[a:b]` and `items[indexes]`,
            such as an array.
        num_items: Number of items.

    Example:
        >>> scores = ProductScores(np.ones((1, 2), np.float32), np.eye(3, 2, dtype=np.float32), 3)
        >>> scores.whole_rows()
        array([[1., 1., 0.]], dtype=float32)
    """

    def __init__(self, users: np.ndarray, items: Any, num_items: int):
        self._users = ops.convert_to_tensor(users)
        self._items = items
        self.shape = (len(users), num_items)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        width = block_width(*self.shape)
        for first in range(0, self.shape[1], width):
            stop = min(first + width, self.shape[1])
            yield first, self._products(self._items[first:stop], width)

    def at(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        # Of all users with all these items, in the width of a block: so they round as there.
        scores = np.empty(len(rows), np.float32)
        width = block_width(*self.shape)
        for first in range(0, len(rows), width):
            part = slice(first, first + width)
            products = self._products(self._items[items[part]], width)
            scores[part] = products[rows[part], np.arange(products.shape[1])]
        return scores

    def _products(self, items: np.ndarray, width: int) -> np.ndarray:
        """Returns float32 `[n, m]`; the product is made for `width` items, the last ones zero."""
        count = len(items)
        if count < width:
            padding = np.zeros((width - count, items.shape[1]), np.float32)
            items = np.concatenate([items, padding])
        return np.asarray(ops.einsum("nd,md->nm", self._users, items))[:, :count]
