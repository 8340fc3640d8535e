"""What lay before a moment, for many keys and moments at once."""

import numpy as np


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
        self._moments = np.unique(times)
        # A key has one more place than there are moments: that after the last of them.
        self._places = len(self._moments) + 1
        codes = keys * self._places + np.searchsorted(self._moments, times)
        self.order = np.argsort(codes, kind="stable")
        self._codes = codes[self.order]

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
