"""What lay before a moment, for many keys and moments at once."""

from typing import TYPE_CHECKING

import numpy as np

from tfrec_llm.data.row_numbers import stable_order
from tfrec_llm.errors import DataError

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog


class PastRows:
    """Rows sorted by key and then by time, to be asked for those strictly before a moment.

    Args:
        keys: int64 `[n]`, such as the number of every row's user, from 0; a row with a negative
            key is never found.
        times: int64 `[n]`, the time of every row.

    Attributes:
        order: int64 `[n]`, the row numbers by key, then by time; rows of one key and time keep
            their order. `before` speaks of places in it.

    Example:
        >>> past = PastRows(np.array([0, 1, 0]), np.array([30, 10, 20]))
        >>> starts, ends = past.before(np.array([0, 0]), np.array([30, 31]))
        >>> [past.order[a:b].tolist() for a, b in zip(starts, ends)]
        [[2], [2, 0]]
    """

    def __init__(self, keys: np.ndarray, times: np.ndarray):
        by_time = None
        if (times[1:] < times[:-1]).any():
            by_time = np.argsort(times, kind="stable")
            keys, times = keys[by_time], times[by_time]
        is_new = np.append(True, times[1:] != times[:-1])[: len(times)]
        self._moments = times[is_new]
        # A key has one more place than there are moments: that after the last of them.
        self._places = len(self._moments) + 1
        keys = np.maximum(keys, -1)
        order = stable_order(keys + 1, int(keys.max(initial=-1)) + 2)
        self._codes = (keys * self._places + np.cumsum(is_new) - 1)[order]
        self.order = order if by_time is None else by_time[order]

    def before(self, keys: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds each key's rows of an earlier time; those of the very time are not among them.

        Args:
            keys: int64 `[m]`; a negative one has no rows.
            times: int64 `[m]`.

        Returns:
            Two int64 arrays `[m]`: the first place in `order`, and the place after the last.
        """
        first = np.maximum(keys, 0) * self._places
        starts = np.searchsorted(self._codes, first)
        ends = np.searchsorted(self._codes, first + np.searchsorted(self._moments, times))
        return starts, np.where(keys < 0, starts, ends)


def require_same_clock(log: "BehaviorLog") -> None:
    """Raises DataError if the times of a log and of its history are of different types."""
    if log.history is None:
        return
    kinds = [one.table["time"].type for one in (log, log.history)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"The times of the log are {kinds[0]}, those of its history {kinds[1]}, so none is "
            "before another. Convert one of them."
        )
