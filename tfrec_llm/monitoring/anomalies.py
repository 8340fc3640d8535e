"""Moments at which a series of measurements is not what it is at such moments."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Same moments of seasons before that are compared, and how many there must be.
_SEASONS, _FEWEST = 14, 3
# Moments that are compared where there are not enough seasons, and how many there must be.
_RECENT, _FEWEST_RECENT = 48, 12
# Median absolute deviations of a normal variable, in its standard deviations.
_MAD = 1.4826


@dataclass(frozen=True)
class Anomaly:
    """A measurement that stands out.

    Attributes:
        series: Of what.
        time: When, microseconds since 1970: the begin of a stretch.
        value: What was measured.
        expected: The median of what it was compared with.
        score: How many robust standard deviations lie between; below 0 it is too small.
    """

    series: str
    time: int
    value: float
    expected: float
    score: float


def usual(values: np.ndarray, *, season: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what every value is usually like: as the same moment in the seasons before.

    That is their median, and how far values scatter their median absolute deviation, so that an
    anomaly of last week does not hide one of today. Where less than three seasons are known, the
    moments just before take their place.

    Args:
        values: Float `[n]`, at even distances; NaN where nothing was measured.
        season: Values that make a season: 24 of an hour make a day.

    Returns:
        What was expected, and a robust standard deviation, both float `[n]`; NaN where too little
        came before.

    Example:
        >>> values = np.array([10.0, 90.0, 12.0, 90.0, 14.0, 90.0, 12.0, 10.0])
        >>> [found[-1] for found in usual(values, season=2)]
        [np.float64(90.0), np.float64(0.0)]
    """
    values = np.asarray(values, np.float64)
    expected = np.full(len(values), np.nan)
    scatter = np.full(len(values), np.nan)
    for place in range(len(values)):
        before = values[place - season :: -season][:_SEASONS] if place >= season else values[:0]
        before = before[~np.isnan(before)]
        if len(before) < _FEWEST:
            before = values[max(0, place - _RECENT) : place]
            before = before[~np.isnan(before)]
            if len(before) < _FEWEST_RECENT:
                continue
        expected[place] = np.median(before)
        scatter[place] = _MAD * np.median(np.abs(before - expected[place]))
    return expected, scatter


def find_anomalies(
    series: str,
    times: np.ndarray,
    values: np.ndarray,
    *,
    season: int,
    chance: Callable[[np.ndarray], np.ndarray],
    limit: float,
) -> list[Anomaly]:
    """Returns the values that are farther from the usual than a number of standard deviations.

    Args:
        series: Name of the series.
        times: int64 `[n]`, microseconds since 1970.
        values: As in `usual`.
        season: As in `usual`.
        chance: Gives the least standard deviations for what is expected, `[n]`: counts of five
            do not always come out as five, however steady a shop is.
        limit: Standard deviations.

    Example:
        >>> values = np.array([50.0] * 20 + [5.0])
        >>> times = np.arange(len(values))
        >>> [one.time for one in find_anomalies(
        ...     "events", times, values, season=4, chance=np.sqrt, limit=5.0)]
        [20]
    """
    expected, scatter = usual(values, season=season)
    deviation = np.maximum(np.maximum(scatter, chance(expected)), 1e-12)
    scores = (values - expected) / deviation
    return [
        Anomaly(
            series, int(times[place]), *(float(one[place]) for one in (values, expected, scores))
        )
        for place in np.flatnonzero(np.abs(np.nan_to_num(scores)) > limit)
    ]
