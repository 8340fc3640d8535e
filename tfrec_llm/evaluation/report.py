"""What ranking a catalogue for users found, as numbers with their uncertainty."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tfrec_llm.evaluation.bootstrap import bootstrap_means, percentile_interval
from tfrec_llm.evaluation.difference import Difference
from tfrec_llm.evaluation.metric_report import MetricReport
from tfrec_llm.evaluation.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class EvaluatedUsers:
    """Over whom and over what an evaluation was made.

    Attributes:
        users: Number of users.
        items: Number of items that were ranked for each.
        targets: Number of held-out items, all users together.
        unknown_targets: How many of them the model never saw; they count as misses.
        filter_seen: Whether the items of a user's history were taken out of the ranking.
    """

    users: int
    items: int
    targets: int
    unknown_targets: int
    filter_seen: bool

    @property
    def protocol(self) -> tuple[int, int, bool]:
        """What must be equal where reports are compared."""
        return self.users, self.targets, self.filter_seen

    @property
    def variant(self) -> str:
        """What may differ: a model may leave rare items out, and what it cannot rank counts."""
        return f"{self.items:,} items"

    def __str__(self) -> str:
        seen = "seen items removed" if self.filter_seen else "nothing removed"
        unknown = f", {self.unknown_targets:,} of them unknown" if self.unknown_targets else ""
        return (
            f"{self.users:,} users, {self.items:,} items, {seen}, {self.targets:,} targets{unknown}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Report(MetricReport):
    """The metrics of one evaluation by name: `report["ndcg@10"]`.

    Attributes:
        values_by_name: The metrics, means over users (coverage and Gini: of all lists together).
        evaluated: Over whom the evaluation was made, `EvaluatedUsers`.
        intervals: (low, high) of the metrics that are means over users; empty if not asked for.
        confidence: Share of the resamples that the intervals hold.
        per_user: float64 `[users]` of the same metrics; NaN where a user has none.

    Example:
        >>> evaluated = EvaluatedUsers(3, 100, 3, 0, filter_seen=True)
        >>> report = Report.from_users({"hr@10": np.array([0, 1, 1])}, evaluated, confidence=None)
        >>> round(report["hr@10"], 4)
        0.6667
        >>> print(report)
        3 users, 100 items, seen items removed, 3 targets
               @10
        hr  0.6667
    """

    per_user: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_users(
        cls,
        per_user: Mapping[str, np.ndarray],
        evaluated: EvaluatedUsers,
        *,
        overall: Mapping[str, float] | None = None,
        confidence: float | None = 0.95,
        seed: int = 0,
    ) -> "Report":
        """Averages metrics over users and puts bootstrap percentile intervals around them.

        Args:
            per_user: Float `[users]` by metric name, such as `"ndcg@10"`.
            evaluated: Over whom the metrics are.
            overall: Further metrics that are not means over users.
            confidence: Share of the resamples the intervals hold; None for no intervals.
            seed: Seed of the resampling.
        """
        names = list(per_user)
        table = np.stack([per_user[name] for name in names], axis=1, dtype=np.float64)
        counts = np.count_nonzero(~np.isnan(table), axis=0)
        sums = np.nansum(table, axis=0)
        means = np.divide(sums, counts, out=np.full(len(names), np.nan), where=counts > 0)
        intervals = {}
        if confidence is not None:
            bounds = percentile_interval(bootstrap_means(table, seed=seed), confidence)
            intervals = dict(zip(names, map(tuple, bounds.tolist()), strict=True))
        values = dict(zip(names, means.tolist(), strict=True)) | dict(overall or {})
        return cls(values, evaluated, intervals, confidence, dict(per_user))

    def __str__(self) -> str:
        cells: dict[str, dict[str, str]] = {}
        for name in self:
            metric, _, k = name.partition("@")
            cells.setdefault(metric, {})[f"@{k}"] = self._cell(name)
        columns = list(dict.fromkeys(k for row in cells.values() for k in row))
        rows = [["", *columns]]
        rows += [[metric, *(row.get(k, "") for k in columns)] for metric, row in cells.items()]
        return f"{self._heading()}\n{text_table(rows, align_left=bool(self.intervals))}"

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a row a metric: metric, k, value, low, high (NaN where there is no interval)."""
        import pandas as pd

        rows = []
        for name, value in self.items():
            metric, _, k = name.partition("@")
            low, high = self.intervals.get(name, (np.nan, np.nan))
            rows.append((metric, int(k), value, low, high))
        return pd.DataFrame(rows, columns=["metric", "k", "value", "low", "high"])

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws the metrics as bars with their intervals; works without a display.

        Args:
            path: Where to write the picture (its ending gives the format); None to only draw.
        """
        from tfrec_llm.evaluation.drawing import draw_bars

        return draw_bars({"": self}, list(self), path=path)

    def difference(
        self, over: "Report", metric: str, *, confidence: float = 0.95, seed: int = 0
    ) -> Difference:
        """Returns this report's metric minus that of another report over the same users.

        The users are paired: both are compared on each user, which shows smaller leads than two
        separate intervals do.

        Args:
            over: The other.
            metric: Such as `"ndcg@10"`; one that is a mean over users.
            confidence: Of the bootstrap interval over the users.
            seed: Of the resampling.
        """
        ahead = self.per_user[metric] - over.per_user[metric]
        means = bootstrap_means(ahead[:, None], seed=seed)[:, 0]
        return Difference.from_resamples(float(np.nanmean(ahead)), means, confidence)
