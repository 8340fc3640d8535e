"""What users did, visit by visit."""

from dataclasses import dataclass

import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.duration import Duration, duration_of
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import EmptyLogError


@dataclass(frozen=True)
class Sessions:
    """Visits of users, those of a user one after another, oldest first.

    Attributes:
        sequences: The behaviours of every session, oldest first.
        users: int64 `[sessions]`, the number of each session's user, never falling.

    Raises:
        ValueError: If there is not one user a session, or a user's sessions do not stand
            together, or a session is empty.
    """

    sequences: UserSequences
    users: np.ndarray

    def __post_init__(self) -> None:
        if len(self.users) != len(self.sequences) or (np.diff(self.users) < 0).any():
            raise ValueError(
                f"users must hold the number of the user of each of {len(self.sequences)} "
                "sessions, in rising order."
            )
        if not self.sequences.lengths.all():
            raise ValueError("A session is empty. Leave it out.")

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def followed(self) -> np.ndarray:
        """int64, the numbers of the sessions after which their user came once more."""
        return np.flatnonzero(self.users[1:] == self.users[:-1])


def split_sessions(
    log: BehaviorLog,
    vocabulary: Vocabulary,
    *,
    gap: Duration | None = None,
    column: str | None = None,
) -> Sessions:
    """Cuts what every user did into sessions, by pauses or by a column that names them.

    Args:
        log: Behaviours in any order. Those of equal time keep the log's row order.
        vocabulary: Gives the items their indexes; others become `UNKNOWN`.
        gap: A session ends where its user pauses for longer: a timedelta or a string such as
            `"30min"` for times of day, a number in their unit for times that are numbers.
        column: Column whose values tell the sessions of a user apart, such as an invoice. They
            may overlap in time; the one that began first comes first.

    Returns:
        The sessions, users in the order of their first appearance in the log.

    Raises:
        ValueError: If not one of `gap` and `column` is given, or `gap` is negative.
        EmptyLogError: If the log has no rows.
        NullValueError: If a row lacks its user, item, time or the column's value.
        DataError: If `gap` does not fit the log's times.

    Example:
        >>> import pyarrow as pa
        >>> log = BehaviorLog.from_arrow(
        ...     pa.table({"user": [7, 7, 7, 8], "item": list("ABCA"), "time": [0, 5, 90, 7]})
        ... )
        >>> sessions = split_sessions(log, Vocabulary(["A", "B", "C"]), gap=30)
        >>> [sessions.sequences[row].tolist() for row in range(len(sessions))], sessions.users
        ([[3, 4], [5], [3]], array([0, 0, 1]))
    """
    if (gap is None) == (column is None):
        raise ValueError(
            "Sessions are told apart by a gap in time or by a column: give one of gap= and column=."
        )
    if not len(log):
        raise EmptyLogError("The log has no rows to make sessions of.")
    sequences = UserSequences.from_log(log, vocabulary)
    order = log.order()
    users = log.user_codes()[0][order]
    begins = np.ones(len(log), bool)
    begins[1:] = users[1:] != users[:-1]
    if gap is not None:
        longest = duration_of(log, gap, "gap")
        if longest < 0:
            raise ValueError(f"gap must not be negative, got {gap!r}.")
        begins[1:] |= np.diff(log.times()[order]) > longest
        rows = np.arange(len(log))
    else:
        assert column is not None
        log.require_complete(column)
        names, values = log.encoded(column)
        # Each session by the place of its first behaviour: users stay together, in time order.
        _, first, of_row = np.unique(
            users * len(values) + names[order], return_index=True, return_inverse=True
        )
        rows = np.argsort(first[of_row], kind="stable")
        began = first[of_row][rows]
        begins[1:] = began[1:] != began[:-1]
    starts = np.flatnonzero(begins)
    kinds = sequences.behaviors
    assert sequences.times is not None
    split = UserSequences(
        sequences.items[rows],
        np.append(starts, len(log)).astype(np.int64),
        behaviors=None if kinds is None else kinds[rows],
        times=sequences.times[rows],
        behavior_vocabulary=sequences.behavior_vocabulary,
    )
    return Sessions(split, users[rows][starts])
