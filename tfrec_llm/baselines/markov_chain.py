"""What most often came right after the last item."""

import numpy as np

from tfrec_llm.baselines.baseline import Baseline, pair_counts
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import PADDING


class MarkovChain(Baseline):
    """First-order Markov chain: how often b came right after the user's last item.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(50, 20).simulate()
        >>> chain = MarkovChain().fit(log)
        >>> len(chain.recommend(histories=[[log.item[0].as_py()]], k=3))
        3

    Reference:
        Factorizing Personalized Markov Chains,
        https://doi.org/10.1145/1772690.1772773
    """

    def count(self, sequences: UserSequences) -> None:
        following = pair_counts(sequences, self.vocabulary.size, window=1)
        self._following = following.astype(np.float32)
        # Counts are whole, so half of a number below 1 orders equal ones and moves no other.
        self._following.data += 0.5 * self._fill[self._following.indices]

    def rate(self, sequences: UserSequences) -> np.ndarray:
        last = np.full(len(sequences), PADDING, np.int64)
        some = sequences.lengths > 0
        last[some] = np.asarray(sequences.items)[sequences.offsets[1:][some] - 1]
        return self._following[last].toarray()
