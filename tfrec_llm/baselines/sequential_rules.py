"""Rules from what came before to what comes next, weighted by distance."""

import numpy as np
from scipy import sparse

from tfrec_llm.baselines.baseline import Baseline, pair_counts
from tfrec_llm.data.packing import from_newest
from tfrec_llm.data.sequences import UserSequences


class SequentialRules(Baseline):
    """The strongest floor: pairs in order, near ones and rare items weighing more.

    With C(a, b) the sum of 1 / d over pairs of a standing d <= `window` places
    before b, the score of b is the sum over the newest `history` items a, of
    recency rank r = 0, 1, ..., of
    `1 / (1 + r) * C(a, b) / (sqrt(pop a) * pop(b) ** 0.25)`.

    Args:
        window: Largest distance of a pair.
        history: Newest items of a user that count.

    Raises:
        ValueError: If an argument is below 1.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(50, 20).simulate()
        >>> rules = SequentialRules(window=5, history=5).fit(log)
        >>> len(rules.recommend(histories=[[log.item[0].as_py()]], k=3))
        3

    Reference:
        Evaluation of session-based recommendation algorithms,
        https://arxiv.org/abs/1803.09587
    """

    def __init__(self, window: int = 10, history: int = 10):
        if window < 1 or history < 1:
            raise ValueError(f"window and history must be 1 or more, got {window} and {history}.")
        self.window = window
        self.history = history

    def count(self, sequences: UserSequences) -> None:
        counts = pair_counts(sequences, self.vocabulary.size, self.window)
        popularity = np.maximum(self._occurrences(sequences), 1.0)
        scaled = counts.multiply(popularity[:, None] ** -0.5)
        rules = scaled.multiply(popularity[None, :] ** -0.25)
        self._rules = rules.tocsr().astype(np.float32)

    def rate(self, sequences: UserSequences) -> np.ndarray:
        newest = sequences.newest(self.history)
        recency = from_newest(newest.lengths)
        read = sparse.csr_array(
            (
                (1.0 / (1.0 + recency)).astype(np.float32),
                np.asarray(newest.items, np.int64),
                newest.offsets,
            ),
            shape=(len(sequences), self.vocabulary.size),
        )
        return (read @ self._rules).toarray()
