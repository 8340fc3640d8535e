"""Lists of items, one a user."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shortlists:
    """Lists of items for n users, the best first.

    Attributes:
        items: int64 `[n, places]`, counted from 0 for the first item of the vocabulary; -1 where
            a place is empty, which is behind the others.
        scores: float32 `[n, places]`; `-inf` where a place is empty.
    """

    items: np.ndarray
    scores: np.ndarray

    def take(self, places: np.ndarray) -> "Shortlists":
        """Returns what stands at `places`, int `[n, m]`; -1 leaves a place empty."""
        empty = places < 0
        rows = np.arange(len(places))[:, None]
        return Shortlists(
            np.where(empty, -1, self.items[rows, places]),
            np.where(empty, np.float32(-np.inf), self.scores[rows, places]),
        )
