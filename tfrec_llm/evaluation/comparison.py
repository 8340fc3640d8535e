"""Several scorers under one protocol, side by side."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.evaluation.difference import Difference
from tfrec_llm.evaluation.metric_report import MetricReport
from tfrec_llm.evaluation.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.evaluation.scorer import Scorer

# Properties of lists and of probabilities for which neither more nor less is better.
_UNJUDGED = (
    *("popularity_bias", "novelty", "gini", "coverage", "diversity"),
    *("base_rate", "mean_probability", "calibration_error_by_chance"),
)
_LESS_IS_BETTER = ("log_loss", "normalized_entropy", "calibration_error")


class Comparison(Mapping[str, Any]):
    """Reports by the name of what was evaluated; prints as one table, the best marked.

    Args:
        reports: The reports, in the order to show them: each a `Report`, or each a
            `ClickReport`.

    Raises:
        ValueError: If there are none, or they are not over the same users, targets and protocol,
            or the same impressions. Catalogues may differ, as where a model leaves rare items
            out: what it cannot rank counts against it.

    Example:
        >>> from tfrec_llm.evaluation import EvaluatedUsers, Report
        >>> evaluated = EvaluatedUsers(2, 100, 2, 0, filter_seen=False)
        >>> chain = Report.from_users({"hr@10": np.array([0, 1])}, evaluated)
        >>> model = Report.from_users({"hr@10": np.array([1, 1])}, evaluated)
        >>> print(Comparison({"chain": chain, "model": model}))
        2 users, 100 items, nothing removed, 2 targets; * marks the best
                hr@10
        chain  0.5000
        model  1.0000*
    """

    def __init__(self, reports: Mapping[str, MetricReport]):
        if not reports:
            raise ValueError("A comparison needs a report or more.")
        kinds: dict[tuple[Any, ...], str] = {}
        for name, report in reports.items():
            kind = (type(report), *report.evaluated.protocol)
            kinds.setdefault(kind, f"{name}: {report.evaluated}")
        if len(kinds) > 1:
            raise ValueError(f"The reports do not compare. {'; '.join(kinds.values())}.")
        self._reports = dict(reports)

    def __getitem__(self, name: str) -> Any:
        return self._reports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        metrics = self._metrics()
        alike = len({report.evaluated.variant for report in self.values()}) == 1
        rows = [["", *metrics]]
        for name, report in self.items():
            rows.append([name if alike else f"{name} ({report.evaluated.variant})"])
        for metric in metrics:
            values = {name: report.get(metric, np.nan) for name, report in self.items()}
            best = self._best(metric, values)
            for row, value in zip(rows[1:], values.values(), strict=True):
                row.append(f"{value:.4f}{'*' if round(value, 4) == best else ' '}")
        rows[0] = [f"{cell} " if i else cell for i, cell in enumerate(rows[0])]
        evaluated = next(iter(self.values())).evaluated
        return f"{evaluated}; * marks the best\n{text_table(rows)}"

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a row a scorer, a column a metric."""
        import pandas as pd

        return pd.DataFrame({name: dict(report) for name, report in self.items()}).T

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: the reports' `to_dict` by name."""
        return {name: report.to_dict() for name, report in self.items()}

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        metrics: Sequence[str] = ("hr", "ndcg", "auc", "grouped_auc", "log_loss"),
    ) -> "Figure":
        """Draws the scorers' bars beside each other; works without a display.

        Args:
            path: Where to write the picture (its ending gives the format); None to only draw.
            metrics: Which to draw of those that were evaluated, without their `@k`; all lengths
                of list.
        """
        from tfrec_llm.evaluation.drawing import draw_bars

        chosen = [name for name in self._metrics() if name.partition("@")[0] in metrics]
        if not chosen:
            raise ValueError(f"None of {list(metrics)} is in {self._metrics()}.")
        return draw_bars(self, chosen, path=path)

    def difference(
        self, name: str, over: str, metric: str, *, confidence: float = 0.95, seed: int = 0
    ) -> Difference:
        """How far a scorer is ahead of another, with a bootstrap interval.

        Both are compared on each user or impression, which shows smaller leads than two separate
        intervals do.

        Args:
            name: The one.
            over: The other.
            metric: Such as `"ndcg@10"`, a mean over users, or `"auc"`; one that has intervals.
            confidence: Of the interval.
            seed: Of the resampling.
        """
        return self[name].difference(self[over], metric, confidence=confidence, seed=seed)

    def _metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for report in self.values() for metric in report))

    @staticmethod
    def _best(metric: str, values: Mapping[str, float]) -> float | None:
        judged = [value for value in values.values() if not np.isnan(value)]
        if metric.partition("@")[0] in _UNJUDGED or not judged:
            return None
        return round(min(judged) if metric in _LESS_IS_BETTER else max(judged), 4)


def compare(scorers: Mapping[str, "Scorer"], log: "BehaviorLog", **options: Any) -> Comparison:
    """Evaluates several scorers on the same held-out behaviours.

    Args:
        scorers: By the name to show.
        log: Held-out behaviours, with their history.
        **options: As in `Scorer.evaluate`: `k`, `filter_seen`, ...

    Returns:
        The comparison, in the order of `scorers`.
    """
    return Comparison({name: scorer.evaluate(log, **options) for name, scorer in scorers.items()})
