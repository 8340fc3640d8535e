"""Scores of items that are kept as codes."""

from collections.abc import Iterator

import numpy as np

from tfrec_llm.evaluation.item_scores import ItemScores, block_width


class CodeScores(ItemScores):
    """Scores of a few users, looked up by the codes of items.

    A user's vector is multiplied with the centroids once; an item's score is
    then the sum of one entry a code, and no vector of an item is made.

    Args:
        users: float32 `[n, emb_dim]`.
        codes: uint8 `[items, num_codes]`.
        centroids: float32 `[num_codes, 256, emb_dim / num_codes]`.

    Example:
        >>> codes = np.array([[0], [1], [1]], np.uint8)
        >>> centroids = np.zeros((1, 256, 2), np.float32)
        >>> centroids[0, 1] = 1
        >>> CodeScores(np.ones((1, 2), np.float32), codes, centroids).whole_rows()
        array([[0., 2., 2.]], dtype=float32)

    Reference:
        Efficient Inference of Sub-Item Id-based Sequential Recommendation
        Models with Millions of Items, https://arxiv.org/abs/2408.09992
    """

    def __init__(self, users: np.ndarray, codes: np.ndarray, centroids: np.ndarray):
        num_codes, _, part = centroids.shape
        parts = users.reshape(len(users), num_codes, part).transpose(1, 0, 2)
        # float32 [num_codes, n, 256]
        self._entries = np.matmul(parts, centroids.transpose(0, 2, 1))
        self._codes = codes
        self.shape = (len(users), len(codes))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        width = block_width(*self.shape)
        for first in range(0, self.shape[1], width):
            codes = self._codes[first : first + width]
            scores = self._entries[0].take(codes[:, 0], axis=1)
            for number in range(1, len(self._entries)):
                scores += self._entries[number].take(codes[:, number], axis=1)
            yield first, scores

    def at(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        scores = self._entries[0][rows, self._codes[items, 0]]
        for number in range(1, len(self._entries)):
            scores += self._entries[number][rows, self._codes[items, number]]
        return scores
