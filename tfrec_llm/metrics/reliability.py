"""Whether probabilities are as large as what happens is frequent."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tfrec_llm.data.labels import as_labels, as_probabilities, as_weights

Binning = Literal["mass", "width"]


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Predicted and observed rates of the pairs of similar probability; empty bins are left out.

    Attributes:
        probability: float64 `[bins]`, the mean predicted probability, rising.
        rate: float64 `[bins]`, the mean label: how often there was a click.
        weight: float64 `[bins]`, the pairs in the bin, by weight.
        deviation: float64 `[bins]`, the standard deviation of the rate by chance, were the
            probabilities true and the pairs independent.
    """

    probability: np.ndarray
    rate: np.ndarray
    weight: np.ndarray
    deviation: np.ndarray

    @property
    def error(self) -> float:
        """Mean distance of the predicted from the observed rate, weighted by the pairs."""
        return float(np.average(np.abs(self.probability - self.rate), weights=self.weight))

    @property
    def error_by_chance(self) -> float:
        """What `error` is on average where the probabilities are true."""
        # The mean distance of a normal variable from its mean.
        distance = np.sqrt(2.0 / np.pi) * self.deviation
        return float(np.average(distance, weights=self.weight))


def calibration_error(
    labels: Any,
    probabilities: Any,
    *,
    bins: int = 15,
    binning: Binning = "mass",
    weights: Any = None,
) -> float:
    """Returns the expected calibration error: how far probabilities lie from observed rates.

    Pairs are put into bins by their probability, and the distances of each bin's mean
    probability from its rate of clicks are averaged, weighted by the pairs. Chance moves the rates
    of few pairs, so that even a perfect model has an error: `reliability_bins` tells which. Errors
    compare for equal data and bins.

    Args:
        labels: `[n]` in 0..1, 1 for a click.
        probabilities: Float `[n]`.
        bins: How many, 1 or more.
        binning: `"mass"` for bins of equally many pairs, which tell apart the small
            probabilities that rare clicks have; fewer bins where many pairs are of equal
            probability, as those are always in one. `"width"` for equal parts of 0..1, a value on
            a border lying in the lower one.
        weights: Float `[n]`, 0 or more; None for equal ones.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN or outside 0..1.
        ValueError: If `bins` is below 1 or `binning` unknown.

    Example:
        >>> round(calibration_error([0, 0, 1, 1], [0.2, 0.2, 0.6, 0.6], bins=2), 2)
        0.3

    Reference:
        Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015;
        On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """
    return reliability_bins(
        labels, probabilities, bins=bins, binning=binning, weights=weights
    ).error


def reliability_bins(
    labels: Any,
    probabilities: Any,
    *,
    bins: int = 15,
    binning: Binning = "mass",
    weights: Any = None,
) -> ReliabilityBins:
    """Puts pairs into bins by their probability; what `calibration_error` averages.

    Arguments and errors are those of `calibration_error`.

    Example:
        >>> reliability_bins([0, 1, 1, 1], [0.2, 0.2, 0.6, 0.8], bins=2).rate
        array([0.5, 1. ])
    """
    labels = as_labels(labels)
    probabilities = as_probabilities(probabilities, len(labels))
    weights = as_weights(weights, len(labels))
    places = bin_places(probabilities, weights, bins=bins, binning=binning)
    weight = np.bincount(places, weights, bins)
    filled = weight > 0
    # What is observed of a pair scatters by p * (1 - p) around its probability p.
    scatter = weights * probabilities * (1.0 - probabilities)
    sums = [
        np.bincount(places, weights * values, bins)[filled]
        for values in (probabilities, labels, scatter)
    ]
    weight = weight[filled]
    return ReliabilityBins(
        sums[0] / weight, sums[1] / weight, weight, deviation=np.sqrt(sums[2]) / weight
    )


def bin_places(
    probabilities: np.ndarray, weights: np.ndarray, *, bins: int, binning: Binning
) -> np.ndarray:
    """Returns the int64 `[n]` bin of every pair, from 0."""
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, not {bins}.")
    if binning == "width":
        borders = np.linspace(0.0, 1.0, bins + 1)[1:-1]
        return np.searchsorted(borders, probabilities, side="left")
    if binning != "mass":
        raise ValueError(f'binning must be "mass" or "width", not {binning!r}.')
    _, values = np.unique(probabilities, return_inverse=True)
    return _parts_of_equal_mass(np.bincount(values, weights), bins)[values]


def _parts_of_equal_mass(masses: np.ndarray, bins: int) -> np.ndarray:
    """Returns the int64 part of every mass, from 0; a part ends where it has its share."""
    ends = np.cumsum(masses)
    total = float(ends[-1])
    least = 0.5 * total / bins
    starts, done = [0], 0.0
    for left in range(bins, 1, -1):
        # Large masses leave less to share out; what has been rounded must not count as short.
        share = max((total - done) / left, least) * (1.0 - 1e-12)
        last = int(np.searchsorted(ends, done + share))
        if last >= len(ends) or total - ends[last] < least:
            break
        starts.append(last + 1)
        done = float(ends[last])
    return np.searchsorted(starts, np.arange(len(masses)), side="right") - 1
