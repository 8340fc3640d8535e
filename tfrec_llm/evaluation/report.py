"""What an evaluation found, as numbers with their uncertainty."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.evaluation.bootstrap import bootstrap_means, percentile_interval

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

    def __str__(self) -> str:
        seen = "seen items removed" if self.filter_seen else "nothing removed"
        unknown = f", {self.unknown_targets:,} of them unknown" if self.unknown_targets else ""
        return (
            f"{self.users:,} users, {self.items:,} items, {seen}, {self.targets:,} targets{unknown}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Report(Mapping[str, float]):
    """The metrics of one evaluation by name: `report["ndcg@10"]`.

    Attributes:
        values_by_name: The metrics, means over users (coverage and Gini: of all lists together).
        evaluated: Over whom the evaluation was made.
        intervals: (low, high) of the metrics that are means over users; empty if not asked for.
        per_user: float64 `[users]` of the same metrics; NaN where a user has none.
        confidence: Share of the resamples that the intervals hold.

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

    values_by_name: Mapping[str, float]
    evaluated: EvaluatedUsers
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    per_user: Mapping[str, np.ndarray] = field(default_factory=dict)
    confidence: float | None = None

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
        return cls(values, evaluated, intervals, dict(per_user), confidence)

    def __getitem__(self, name: str) -> float:
        try:
            return self.values_by_name[name]
        except KeyError:
            known = ", ".join(self.values_by_name)
            raise KeyError(f"{name!r} was not evaluated; this report has {known}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        cells: dict[str, dict[str, str]] = {}
        for name, value in self.items():
            metric, _, k = name.partition("@")
            low_high = self.intervals.get(name)
            interval = "" if low_high is None else f" [{low_high[0]:.4f}, {low_high[1]:.4f}]"
            cells.setdefault(metric, {})[f"@{k}"] = f"{value:.4f}{interval}"
        columns = list(dict.fromkeys(k for row in cells.values() for k in row))
        rows = [["", *columns]]
        rows += [[metric, *(row.get(k, "") for k in columns)] for metric, row in cells.items()]
        heading = str(self.evaluated)
        if self.intervals:
            heading += f"; {100 * (self.confidence or 0):g} % intervals"
        return f"{heading}\n{text_table(rows, align_left=bool(self.intervals))}"

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a row a metric: metric, k, value, low, high (NaN where there is no interval)."""
        import pandas as pd

        rows = []
        for name, value in self.items():
            metric, _, k = name.partition("@")
            low, high = self.intervals.get(name, (np.nan, np.nan))
            rows.append((metric, int(k), value, low, high))
        return pd.DataFrame(rows, columns=["metric", "k", "value", "low", "high"])

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: values, intervals, and over whom; nothing per user."""
        return {
            "values": dict(self.values_by_name),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "confidence": self.confidence,
            "evaluated": vars(self.evaluated).copy(),
        }

    def to_json(self) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws the metrics as bars with their intervals; works without a display.

        Args:
            path: Where to write the picture (its ending gives the format); None to only draw.
        """
        from tfrec_llm.evaluation.drawing import draw_bars

        return draw_bars({"": self}, list(self), path=path)


def text_table(rows: list[list[str]], *, align_left: bool = False) -> str:
    """Lays out cells in columns; the first column is aligned left, numbers right by default."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    side = "<" if align_left else ">"
    lines = [
        "  ".join(f"{cell:{'<' if i == 0 else side}{widths[i]}}" for i, cell in enumerate(row))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
