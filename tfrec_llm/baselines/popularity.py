"""The most popular items for everyone."""

import numpy as np

from tfrec_llm.baselines.baseline import Baseline
from tfrec_llm.data.sequences import UserSequences


class Popularity(Baseline):
    """Ranks items by how often they occur, or occurred of late.

    Args:
        window: Only behaviours within this time of the newest count, in the
            log's unit of time (microseconds for timestamps). None counts all.

    Raises:
        ValueError: If `window` is not positive.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(50, 20).simulate()
        >>> len(Popularity().fit(log).recommend(histories=[[]], k=3))
        3
    """

    def __init__(self, window: float | None = None):
        if window is not None and window <= 0:
            raise ValueError(f"window must be positive, got {window}.")
        self.window = window

    def count(self, sequences: UserSequences) -> None:
        recent = sequences
        if self.window is not None and sequences.times is not None:
            times = np.asarray(sequences.times)
            kept = np.asarray(sequences.items)[times >= times.max() - self.window]
            recent = UserSequences(kept, np.array([0, len(kept)], np.int64))
        counts = self._occurrences(recent)
        self._rating = counts / max(1.0, counts.max())

    def rate(self, sequences: UserSequences) -> np.ndarray:
        return np.broadcast_to(self._rating, (len(sequences), len(self._rating)))
