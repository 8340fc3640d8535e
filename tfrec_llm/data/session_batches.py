"""Batches that ask whether a session follows another."""

from typing import Any

import numpy as np

from tfrec_llm.data.batches import PackedBatches
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.duration import Duration
from tfrec_llm.data.packing import ranges
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.sessions import Sessions, split_sessions
from tfrec_llm.data.vocabulary import MASK, Vocabulary
from tfrec_llm.data.whole_history import WholeHistory
from tfrec_llm.errors import EmptyLogError

# Tells the draws of pairs from those of packing.
_PAIR_DRAWS = 1 << 21


class NextSessionBatches(PackedBatches):
    """Training batches of session pairs: did the second follow the first?

    Every epoch pairs each session that was followed anew: with the session
    that came next, or with one drawn from all sessions of all other users,
    each as likely as any other. A drawn session that holds just the items of
    the one that came next counts as following, too.

    A pair is one history of the packed row: the first session, the mask as
    what separates them, the second session. Both are read where they meet:
    the newest behaviours of the first, the oldest of the second.

    Args:
        sessions: The sessions of at least two users.
        follow_rate: Share of pairs whose second session is the one that came
            next.
        max_length: Behaviours read of a session.
        row_length: Places a row; None takes the longest pair's.
        batch_size: Rows a batch; None takes about 4,096 behaviours.
        seed: Seed of the pairs and of packing.

    Attributes:
        labels: float32 `[pairs]`, 1 where the second session of the current
            epoch's pair follows.

    Raises:
        EmptyLogError: If no user has two sessions, or there is one user only.
        ValueError: If an option is out of its range.

    Example:
        >>> vocabulary = tfrec_llm.data.Vocabulary(["a", "b", "c"])
        >>> visits = UserSequences.from_histories([["a", "b"], ["c"], ["b", "b"]], vocabulary)
        >>> batches = NextSessionBatches(Sessions(visits, users=np.array([0, 0, 1])))
        >>> inputs, labels, weights = batches[0]
        >>> inputs["items"].tolist(), inputs["target_positions"].tolist(), labels.tolist()
        ([[3, 4, 1, 5, 0, 0, 0, 0]], [[3, 0]], [[1.0, 0.0]])
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        follow_rate: float = 0.5,
        max_length: int = 50,
        row_length: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        if not 0.0 < follow_rate < 1.0:
            raise ValueError(f"follow_rate must lie between 0 and 1, got {follow_rate}.")
        if max_length < 1:
            raise ValueError(f"max_length must be positive, got {max_length}.")
        if not len(sessions.followed) or sessions.users[0] == sessions.users[-1]:
            raise EmptyLogError(
                f"{len(sessions)} sessions of {len(np.unique(sessions.users))} users give no "
                "pairs: that needs a user with two sessions, and sessions of another user. Make "
                "shorter sessions, by a smaller gap."
            )
        self.sessions = sessions
        self.follow_rate = follow_rate
        self.session_length = max_length
        self.seed = seed
        self._contents = _fingerprints(sessions.sequences)
        lengths = np.minimum(sessions.sequences.lengths, max_length)
        followed = lengths[sessions.followed]
        row_length = row_length or -(-int(followed.max() + 1 + lengths.max()) // 8) * 8
        self._pair(0)
        super().__init__(
            self.sequences,
            WholeHistory(row_length // int(followed.min() + 1 + lengths.min())),
            max_length=2 * max_length + 1,
            row_length=row_length,
            batch_size=batch_size,
            seed=seed,
            **kwargs,
        )
        self._num_batches = super().__len__()

    def set_epoch(self, epoch: int) -> None:
        self._pair(epoch)
        super().set_epoch(epoch)

    def __len__(self) -> int:
        # That of the first epoch, as Keras asks before it has the next one's pairs drawn.
        return self._num_batches

    def __getitem__(self, index: int) -> Any:
        inputs, present = super().__getitem__(index)
        first, last = self.packing.row_starts[list(self._rows(index))]
        labels = np.zeros(present.shape, np.float32)
        labels[present] = self.labels[self.packing.sequences[first:last]]
        return inputs, labels, present.astype(np.float32)

    def _pair(self, epoch: int) -> None:
        """Draws an epoch's pairs: `sequences`, a history each, and `labels`."""
        sessions, users = self.sessions.sequences, self.sessions.users
        rng = np.random.default_rng([self.seed, epoch, _PAIR_DRAWS])
        first = self.sessions.followed
        follows = rng.random(len(first)) < self.follow_rate
        # Among the sessions of others: those of the user, which stand together, are left out.
        begin = np.searchsorted(users, users[first])
        end = np.searchsorted(users, users[first], side="right")
        drawn = (rng.random(len(first)) * (len(users) - (end - begin))).astype(np.int64)
        drawn += np.where(drawn >= begin, end - begin, 0)
        second = np.where(follows, first + 1, drawn)
        follows = self._contents[second] == self._contents[first + 1]
        self.labels = follows.astype(np.float32)

        lengths = np.minimum(sessions.lengths, self.session_length)
        before, after = lengths[first], lengths[second]
        offsets = np.append(0, np.cumsum(before + 1 + after))
        to = np.concatenate([ranges(offsets[:-1], before), ranges(offsets[1:] - after, after)])
        source = np.concatenate(
            [
                ranges(sessions.offsets[first + 1] - before, before),
                ranges(sessions.offsets[second], after),
            ]
        )
        items = np.full(offsets[-1], MASK, np.int32)
        items[to] = sessions.items[source]
        kinds = None
        if sessions.behaviors is not None:
            kinds = np.zeros(offsets[-1], np.int32)
            kinds[to] = sessions.behaviors[source]
        self.sequences = UserSequences(
            items, offsets, behaviors=kinds, behavior_vocabulary=sessions.behavior_vocabulary
        )


def next_session_batches(
    data: BehaviorLog | Sessions,
    *,
    vocabulary: Vocabulary | None = None,
    gap: Duration | None = None,
    column: str | None = None,
    **options: Any,
) -> NextSessionBatches:
    """Returns packed batches for `NextSessionModel`.

    Args:
        data: A log, or its sessions.
        vocabulary: Of a log's items; None makes one of the log.
        gap: What tells a log's sessions apart, see `split_sessions`.
        column: What tells a log's sessions apart, see `split_sessions`.
        **options: Of `NextSessionBatches`.
    """
    if not isinstance(data, Sessions):
        vocabulary = vocabulary or Vocabulary.fit(data.item)
        data = split_sessions(data, vocabulary, gap=gap, column=column)
    return NextSessionBatches(data, **options)


def _fingerprints(sessions: UserSequences) -> np.ndarray:
    """Returns a number a session, equal for those of the same items in the same order."""
    rng = np.random.default_rng(0)
    of_item = rng.integers(1 << 63, size=int(sessions.items.max()) + 1, dtype=np.uint64)
    place = ranges(np.zeros(len(sessions), np.int64), sessions.lengths).astype(np.uint64)
    terms = of_item[sessions.items] * (2 * place + 1)
    return np.add.reduceat(terms, sessions.offsets[:-1])
