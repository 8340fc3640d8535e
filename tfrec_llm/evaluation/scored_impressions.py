"""Impressions with what a model held likely, measured whole and in resamples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfrec_llm.data.labels import as_labels, as_probabilities, as_weights
from tfrec_llm.evaluation.bootstrap import bootstrap_times
from tfrec_llm.metrics.click import entropy, log_losses
from tfrec_llm.metrics.grouped_auc import user_numbers
from tfrec_llm.metrics.ranked_labels import RankedLabels


@dataclass(frozen=True, eq=False)
class ScoredImpressions:
    """What a report of click probabilities is made of; only impressions of some weight.

    Attributes:
        labels: float64 `[n]`.
        probabilities: Float `[n]`.
        weights: float64 `[n]`, above 0.
        users: int64 `[n]`, the number of each one's user; None where users are not told apart.
        num_users: How many users there are.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray
    users: np.ndarray | None = None
    num_users: int = 0

    @classmethod
    def of(
        cls, labels: Any, probabilities: Any, *, users: Any = None, weights: Any = None
    ) -> "ScoredImpressions":
        """Checks the arguments of `evaluate_probabilities` and leaves out what has no weight."""
        labels = as_labels(labels)
        probabilities = as_probabilities(probabilities, len(labels))
        weights = as_weights(weights, len(labels))
        kept = weights > 0
        codes, num_users = (None, 0) if users is None else user_numbers(users, kept)
        return cls(labels[kept], probabilities[kept], weights[kept], codes, num_users)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured."""
        grouped = () if self.users is None else ("grouped_auc",)
        return ("auc", *grouped, "log_loss", "normalized_entropy", "base_rate", "mean_probability")

    @cached_property
    def areas(self) -> np.ndarray:
        """float64 `[num_users]`: every user's area under the ROC curve; NaN where there is none."""
        clicked = self.labels > 0.5
        ranked = RankedLabels(clicked, self.probabilities, self.users, self.num_users)
        return ranked.areas(self.weights)

    def are_those_of(self, other: "ScoredImpressions") -> bool:
        """Returns whether the other holds the same impressions, whatever was held likely."""
        same = np.array_equal(self.labels, other.labels)
        same &= np.array_equal(self.weights, other.weights)
        if self.users is None or other.users is None:
            return same and self.users is other.users
        return same and np.array_equal(self.users, other.users)

    def measure(self) -> dict[str, float]:
        """Returns the metrics by name."""
        once = np.ones((1, self._num_units))
        return {name: float(values[0]) for name, values in self._of(once, self.metrics).items()}

    def resample(
        self, metrics: Sequence[str], *, resamples: int = 1000, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Returns float64 `[resamples]` of each metric, over users or else impressions drawn anew.

        The same seed draws the same, whatever the probabilities: two models compare pair by pair.

        Args:
            metrics: Some of `self.metrics`.
            resamples: How many to draw.
            seed: Seed of the draw.
        """
        drawn = bootstrap_times(self._num_units, resamples=resamples, seed=seed)
        blocks = [self._of(times, metrics) for times in drawn]
        return {name: np.concatenate([block[name] for block in blocks]) for name in metrics}

    @property
    def _num_units(self) -> int:
        return len(self.labels) if self.users is None else self.num_users

    def _of(self, times: np.ndarray, metrics: Sequence[str]) -> dict[str, np.ndarray]:
        """Metrics where each user, or else impression, counts so many times `[some, units]`."""
        sums = (times @ self._sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "log_loss": sums[1] / sums[0],
                "base_rate": sums[2] / sums[0],
                "mean_probability": sums[3] / sums[0],
                "grouped_auc": sums[4] / sums[5],
            }
        found["normalized_entropy"] = found["log_loss"] / entropy(found["base_rate"])
        if "auc" in metrics:
            found["auc"] = np.array([self._auc(row) for row in times])
        return {name: found[name] for name in metrics}

    def _auc(self, times: np.ndarray) -> float:
        of_row = times if self.users is None else times[self.users]
        return self._ranked.areas(self.weights * of_row)[0]

    @cached_property
    def _ranked(self) -> RankedLabels:
        return RankedLabels(self.labels > 0.5, self.probabilities)

    @cached_property
    def _sums(self) -> np.ndarray:
        """float64 `[units, 6]`: what the means of each unit's impressions are made of."""
        losses = log_losses(self.labels, self.probabilities)
        rows = [self.weights]
        rows += [self.weights * values for values in (losses, self.labels, self.probabilities)]
        if self.users is None:
            unknown = np.zeros(len(self.labels))
            return np.stack([*rows, unknown, unknown], axis=1)
        sums = [np.bincount(self.users, values, self.num_users) for values in rows]
        ranked = ~np.isnan(self.areas)
        shown = np.where(ranked, sums[0], 0.0)
        return np.stack([*sums, np.where(ranked, self.areas, 0.0) * shown, shown], axis=1)
