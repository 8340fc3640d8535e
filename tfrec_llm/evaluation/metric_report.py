"""Metrics by name, with their uncertainty and over what they were measured."""

import abc
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tfrec_llm.evaluation.difference import Difference

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Evaluated(Protocol):
    """Over what an evaluation was made; `str` tells it in a line."""

    @property
    def protocol(self) -> tuple[Any, ...]:
        """What must be equal where reports are compared."""

    @property
    def variant(self) -> str:
        """What may differ, and is then told beside each report; empty if nothing may."""


@dataclass(frozen=True, eq=False, repr=False)
class MetricReport(Mapping[str, float], abc.ABC):
    """What an evaluation found: the metrics by name, `report["ndcg@10"]` or `report["auc"]`.

    Attributes:
        values_by_name: The metrics.
        evaluated: Over what the evaluation was made.
        intervals: (low, high) of the metrics that have one; empty if not asked for.
        confidence: Share of the resamples that the intervals hold.
    """

    values_by_name: Mapping[str, float]
    evaluated: Any
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confidence: float | None = None

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

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: values, intervals, and over what; nothing per user or row."""
        return {
            "values": dict(self.values_by_name),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "confidence": self.confidence,
            "evaluated": vars(self.evaluated).copy(),
        }

    def to_json(self) -> str:
        """Returns `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @abc.abstractmethod
    def to_pandas(self) -> "pd.DataFrame":
        """Returns a row a metric, with its value and interval."""

    @abc.abstractmethod
    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws the report; works without a display.

        Args:
            path: Where to write the picture (its ending gives the format); None to only draw.
        """

    @abc.abstractmethod
    def difference(
        self, over: Any, metric: str, *, confidence: float = 0.95, seed: int = 0
    ) -> Difference:
        """Returns this report's metric minus that of another report on the same data.

        Args:
            over: The other, of the same kind.
            metric: Its name.
            confidence: Of the bootstrap interval.
            seed: Of the resampling.
        """

    def _heading(self) -> str:
        heading = str(self.evaluated)
        if self.intervals:
            heading += f"; {100 * (self.confidence or 0):g} % intervals"
        return heading

    def _cell(self, name: str) -> str:
        low_high = self.intervals.get(name)
        interval = "" if low_high is None else f" [{low_high[0]:.4f}, {low_high[1]:.4f}]"
        return f"{self[name]:.4f}{interval}"
