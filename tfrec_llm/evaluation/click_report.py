"""What evaluating probabilities of clicks found, as numbers with their uncertainty."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.evaluation.bootstrap import percentile_interval
from tfrec_llm.evaluation.difference import Difference
from tfrec_llm.evaluation.metric_report import MetricReport
from tfrec_llm.evaluation.scored_impressions import ScoredImpressions
from tfrec_llm.evaluation.text_table import text_table
from tfrec_llm.metrics.reliability import ReliabilityBins, reliability_bins

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class EvaluatedImpressions:
    """Over what probabilities were evaluated.

    Attributes:
        impressions: Number of labelled pairs.
        clicks: How many of them are clicks, or whatever a label of 1 stands for.
        users: Number of users; None where they were not told apart.
        users_left_out: How many of them have one class only, so that nothing can be ranked
            within them; None where users were not told apart.
    """

    impressions: int
    clicks: int
    users: int | None = None
    users_left_out: int | None = None

    @property
    def protocol(self) -> tuple[int, int, int | None]:
        """What must be equal where reports are compared."""
        return self.impressions, self.clicks, self.users

    @property
    def variant(self) -> str:
        """What may differ: nothing."""
        return ""

    def __str__(self) -> str:
        text = f"{self.impressions:,} impressions, {self.clicks:,} clicks"
        if self.users is not None:
            text += f", {self.users:,} users, {self.users_left_out:,} of them with one class only"
        return text


@dataclass(frozen=True, eq=False, repr=False)
class ClickReport(MetricReport):
    """The metrics of predicted probabilities by name: `report["auc"]`.

    - `auc`: the chance that a click is ranked above a pair that was no click.
    - `grouped_auc`: the same within each user, averaged by impressions; where users are given.
    - `log_loss`: in nats.
    - `normalized_entropy`: the log loss over that of predicting the base rate.
    - `calibration_error`: how far probabilities lie from observed rates, in bins of equal mass.
    - `calibration_error_by_chance`: what that is on average where the probabilities are true.
    - `base_rate` and `mean_probability`: the mean label and the mean prediction.

    Attributes:
        values_by_name: The metrics; NaN for what one class alone cannot tell: `auc`,
            `grouped_auc`, `normalized_entropy`.
        evaluated: Over what the evaluation was made, `EvaluatedImpressions`.
        intervals: (low, high) of all but the calibration error, which chance raises in every
            resample, so that a bootstrap interval would not hold the truth; empty if not asked
            for.
        confidence: Share of the resamples that the intervals hold.
        reliability: Predicted and observed rates in bins, what `calibration_error` is made of.
        impressions: The labels and probabilities themselves.
    """

    reliability: ReliabilityBins = field(kw_only=True)
    impressions: ScoredImpressions = field(kw_only=True)

    def __str__(self) -> str:
        rows = [[name, self._cell(name)] for name in self]
        return f"{self._heading()}\n{text_table(rows, align_left=bool(self.intervals))}"

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a row a metric: metric, value, low, high (NaN where there is no interval)."""
        import pandas as pd

        rows = [
            (name, value, *self.intervals.get(name, (np.nan, np.nan)))
            for name, value in self.items()
        ]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws observed over predicted rates, as `plot_reliability` does.

        Args:
            path: Where to write the picture (its ending gives the format); None to only draw.
        """
        from tfrec_llm.evaluation.reliability_plot import plot_reliability

        return plot_reliability({"": self}, path)

    def difference(
        self, over: "ClickReport", metric: str, *, confidence: float = 0.95, seed: int = 0
    ) -> Difference:
        """Returns this report's metric minus that of another report over the same impressions.

        Both are measured on the same resamples, which shows smaller leads than two separate
        intervals do.

        Args:
            over: The other.
            metric: One that has intervals, such as `"auc"`.
            confidence: Of the bootstrap interval over the users, or else the impressions.
            seed: Of the resampling.

        Raises:
            ValueError: If the metric has no intervals, or the impressions are others.
        """
        if metric not in self.impressions.metrics:
            raise ValueError(
                f"{metric!r} has no intervals; these have: {', '.join(self.impressions.metrics)}."
            )
        if not self.impressions.are_those_of(over.impressions):
            raise ValueError(
                f"The reports are over other impressions: {self.evaluated} with the one, "
                f"{over.evaluated} with the other, or in another order."
            )
        ours, theirs = (
            report.impressions.resample([metric], seed=seed)[metric] for report in (self, over)
        )
        return Difference.from_resamples(self[metric] - over[metric], ours - theirs, confidence)


def evaluate_probabilities(
    labels: Any,
    probabilities: Any,
    *,
    users: Any = None,
    weights: Any = None,
    bins: int = 15,
    confidence: float | None = 0.95,
    seed: int = 0,
) -> ClickReport:
    """Measures predicted probabilities of clicks: how well they rank, and how true they are.

    Args:
        labels: `[n]` or `[n, 1]` in 0..1, 1 for a click; above 0.5 counts as one where pairs are
            ranked.
        probabilities: Float `[n]` or `[n, 1]` in 0..1, as a model's `predict` gives them.
        users: `[n]`, the user of every pair, integers or strings: adds `grouped_auc`, and the
            intervals resample users, as a user's impressions are alike.
        weights: Float `[n]`, 0 or more; a pair of weight 0 counts nowhere, such as padding.
            None for equal ones.
        bins: Of the calibration error, each of equally many pairs.
        confidence: Of the bootstrap intervals; None for none, which saves most of the time.
        seed: Of the bootstrap.

    Returns:
        The report: `report["auc"]`, `print(report)`, `report.plot()`.

    Raises:
        DataError: If there are no labels, lengths differ, or a value is NaN or outside 0..1.
        NullValueError: If a pair has no user.
        ValueError: If `bins` is below 1, or `confidence` not between 0 and 1.

    Example:
        >>> labels, probabilities = [1, 0, 0, 1], [0.9, 0.2, 0.6, 0.5]
        >>> report = evaluate_probabilities(labels, probabilities, bins=2, confidence=None)
        >>> print(report)
        4 impressions, 2 clicks
        auc                          0.7500
        log_loss                     0.4845
        normalized_entropy           0.6990
        base_rate                    0.5000
        mean_probability             0.5500
        calibration_error            0.2000
        calibration_error_by_chance  0.2423
    """
    scored = ScoredImpressions.of(labels, probabilities, users=users, weights=weights)
    reliability = reliability_bins(
        scored.labels, scored.probabilities, bins=bins, weights=scored.weights
    )
    values = scored.measure() | {
        "calibration_error": reliability.error,
        "calibration_error_by_chance": reliability.error_by_chance,
    }
    intervals = {}
    if confidence is not None:
        for name, resampled in scored.resample(scored.metrics, seed=seed).items():
            low, high = percentile_interval(resampled[:, None], confidence)[0]
            intervals[name] = (float(low), float(high))
    evaluated = EvaluatedImpressions(
        impressions=len(scored.labels),
        clicks=int((scored.labels > 0.5).sum()),
        users=None if scored.users is None else scored.num_users,
        users_left_out=None if scored.users is None else int(np.isnan(scored.areas).sum()),
    )
    return ClickReport(
        values, evaluated, intervals, confidence, reliability=reliability, impressions=scored
    )
