"""What the floors share."""

import abc
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse

from tfrec_llm.data.packing import ranges
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import EmptyLogError, NotFittedError
from tfrec_llm.evaluation.scorer import Scorer

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog


class Baseline(Scorer):
    """Template of floors: `fit` counts, `score` reads the counts.

    A subclass writes `count` and `rate`. Of items that it rates alike the more
    popular one stands first, and those it has nothing to say of follow by
    popularity.

    Raises:
        NotFittedError: If it is asked for scores before `fit`.
    """

    _popularity: np.ndarray | None = None

    def fit(self, log: "BehaviorLog", *, vocabulary: Vocabulary | None = None) -> Self:
        """Counts a log.

        Args:
            log: Behaviours to learn from, such as `split.train`.
            vocabulary: The items to rank; None takes those of the log.

        Returns:
            Itself.

        Raises:
            EmptyLogError: If the log has no rows.
            NullValueError: If a row lacks its user, item or time.
        """
        log.require_complete()
        if not len(log):
            raise EmptyLogError("The log has no rows, so there is nothing to count.")
        self.vocabulary = Vocabulary.fit(log.item) if vocabulary is None else vocabulary
        self.catalogue = log.catalogue
        self.histories = UserSequences.from_log(log, self.vocabulary)
        counts = self._occurrences(self.histories)
        self._popularity = counts
        # From 1 for the most popular item down to 0, no two alike.
        order = np.argsort(-counts, kind="stable")
        self._fill = np.empty(len(counts), np.float32)
        self._fill[order] = np.linspace(1.0, 0.0, len(counts), dtype=np.float32)
        self.count(self.histories)
        return self

    def score(self, sequences: UserSequences) -> np.ndarray:
        if self._popularity is None:
            raise NotFittedError(f"This {type(self).__name__} is not fitted: call fit().")
        rated = np.asarray(self.rate(sequences), np.float32)
        # Rated items stand above 0, of equal ones the more popular first; the others follow
        # between -2 and -1, by popularity.
        scores = np.where(rated > 0, rated * (1.0 + 1e-5 * self._fill), self._fill - 2.0)
        scores[:, :NUM_RESERVED] = -np.inf
        return scores

    @abc.abstractmethod
    def count(self, sequences: UserSequences) -> None:
        """Learns from histories, oldest behaviour first."""

    @abc.abstractmethod
    def rate(self, sequences: UserSequences) -> Any:
        """Returns `[n, vocabulary.size]`, above 0 where there is something to say."""

    def _occurrences(self, sequences: UserSequences) -> np.ndarray:
        """float64 `[vocabulary.size]`: how often each item occurs; 0 for reserved indexes."""
        counts = np.bincount(sequences.items, minlength=self.vocabulary.size).astype(np.float64)
        counts[:NUM_RESERVED] = 0.0
        return counts


def pair_counts(sequences: UserSequences, size: int, window: int) -> sparse.csr_array:
    """Counts ordered pairs of items in the same history by their distance.

    Args:
        sequences: Histories, oldest behaviour first.
        size: Number of indexes.
        window: Largest distance d that counts.

    Returns:
        float64 `[size, size]`: at (a, b) the sum of 1 / d over all pairs with
        a standing d places before b. Reserved indexes count nothing.
    """
    items = np.asarray(sequences.items, np.int64)
    lengths = sequences.lengths
    place = ranges(0 * lengths, lengths)
    counts = sparse.csr_array((size, size), dtype=np.float64)
    for distance in range(1, window + 1):
        later = np.flatnonzero(place >= distance)
        if not len(later):
            break
        before, after = items[later - distance], items[later]
        known = (before >= NUM_RESERVED) & (after >= NUM_RESERVED)
        weights = np.full(np.count_nonzero(known), 1.0 / distance)
        counts = (
            counts
            + sparse.coo_array((weights, (before[known], after[known])), shape=(size, size)).tocsr()
        )
    return counts
