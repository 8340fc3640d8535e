"""How often, how much and how lately something was done before a moment, for many at once."""

from collections.abc import Mapping

import numpy as np

from tfrec_llm.data.past_rows import PastRows

# A rate is that of the rows and of as many more rows at the overall rate.
_PRIOR_ROWS = 5.0


class PastCounts:
    """Counts what lies strictly before a moment, by key.

    Args:
        keys: int64 `[n]`, such as the user of every behaviour; a negative one counts nothing.
        times: int64 `[n]`, the time of every behaviour.
        amounts: Float `[n]` by name, such as what was paid, to be added up.
        labels: Float `[n]`, NaN where there is none, of which the rate is wanted; None for none.

    Example:
        >>> paid = {"paid": np.array([5.0, 2.0, 9.0])}
        >>> past = PastCounts(np.array([0, 0, 1]), np.array([10, 20, 10]), amounts=paid)
        >>> told = past.before(np.array([0, 0, 1]), np.array([20, 21, 10]))
        >>> {name: values.round(2).tolist() for name, values in told.items()}
        {'rows': [0.69, 1.1, 0.0], 'paid': [2.31, 2.64, 0.0], 'last': [2.4, 0.69, nan],
         'first': [2.4, 2.48, nan]}
    """

    def __init__(
        self,
        keys: np.ndarray,
        times: np.ndarray,
        *,
        amounts: Mapping[str, np.ndarray] | None = None,
        labels: np.ndarray | None = None,
    ):
        self._past = PastRows(keys, times)
        order = self._past.order
        self._times = times[order]
        self._sums = {name: _running(values[order]) for name, values in (amounts or {}).items()}
        self._labels: tuple[np.ndarray, np.ndarray] | None = None
        if labels is not None:
            known = ~np.isnan(labels[order])
            self._labels = _running(np.where(known, labels[order], 0.0)), _running(known)

    def before(
        self,
        keys: np.ndarray,
        times: np.ndarray,
        *,
        owners: np.ndarray | None = None,
        count: int | None = None,
        windows: Mapping[str, float] | None = None,
        base_rate: float = 0.0,
    ) -> dict[str, np.ndarray]:
        """Counts for questions of one key each, or of several that are taken together.

        Args:
            keys: int64 `[m]`; of a negative one there is nothing.
            times: int64 `[m]`.
            owners: int64 `[m]`, the question that a key belongs to; None for a question a key.
            count: The number of questions, where `owners` are given.
            windows: Lengths of time by name, for which rows and amounts are counted, too.
            base_rate: The rate of labels where nothing is known.

        Returns:
            Float64 `[questions]` by name: `rows`, the logarithm of one more than the number of
            rows; each amount, as `asinh`; both again for each window, as `rows/7D`; `last` and
            `first`, the logarithm of one more than the time since the latest and the oldest row,
            NaN where there is none; `rate`, that of the labels, drawn towards `base_rate` where
            there are few.
        """
        owners = np.arange(len(keys)) if owners is None else owners
        count = len(keys) if count is None else count

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(owners, values, count)

        starts, ends = self._past.before(keys, times)
        begins = {"": starts}
        for name, length in (windows or {}).items():
            begins[f"/{name}"] = self._past.before(keys, times - round(length))[1]
        told = {}
        for window, begin in begins.items():
            told[f"rows{window}"] = np.log1p(total(ends - begin))
            for name, sums in self._sums.items():
                told[name + window] = np.arcsinh(total(sums[ends] - sums[begin]))
        some = ends > starts
        for name, nearest, place in (("last", np.fmin, ends - 1), ("first", np.fmax, starts)):
            told[name] = np.full(count, np.nan)
            age = np.log1p(times[some] - self._times[place[some]])
            nearest.at(told[name], owners[some], age)
        if self._labels is not None:
            taken, known = (total(sums[ends] - sums[starts]) for sums in self._labels)
            told["rate"] = (taken + _PRIOR_ROWS * base_rate) / (known + _PRIOR_ROWS)
        return told


def _running(values: np.ndarray) -> np.ndarray:
    """Float64 `[n + 1]`: the sum of the first 0, 1, ..., n values."""
    return np.append(0.0, np.cumsum(values, dtype=np.float64))
