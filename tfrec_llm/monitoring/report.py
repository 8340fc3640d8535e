"""What monitoring found, as text, numbers, a page and measures."""

import datetime
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.evaluation.text_table import text_table
from tfrec_llm.monitoring.anomalies import Anomaly
from tfrec_llm.monitoring.drift import Drift


@dataclass(frozen=True)
class Alarm:
    """Something that someone should look at.

    Attributes:
        name: Short, for machines.
        words: What is wrong; `value` stands behind it.
        value: How much.
        limit: From which on it rings.
    """

    name: str
    words: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.words} {self.value:.3g} (limit {self.limit:.3g})"


@dataclass(frozen=True, eq=False)
class Series:
    """A measurement over time.

    Attributes:
        name: Of what.
        times: int64 `[n]`, where each stretch begins, microseconds since 1970.
        values: Float `[n]`; NaN where nothing was measured.
        chance: Gives the standard deviation that chance makes, for expected values `[n]`.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    chance: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class MonitoringReport:
    """What monitoring found of the newest traffic.

    Attributes:
        version: Of the model that it was compared with.
        first: Begin of the window, microseconds since 1970.
        last: Its end.
        quality: Measurements by name, see `quality_of` and `live_calibration`.
        versions: Lists and click-through of each version that answered.
        drifts: How far the traffic has moved from the training; empty without a snapshot or with
            too little traffic.
        series: Traffic, latency and click-through over the whole record.
        anomalies: Of the series, over the whole record.
        alarms: What is beyond its limit in the window.
    """

    version: int
    first: int
    last: int
    quality: Mapping[str, float]
    versions: Mapping[int, Mapping[str, float]]
    drifts: Sequence[Drift]
    series: Sequence[Series] = field(default=())
    anomalies: Sequence[Anomaly] = field(default=())
    alarms: Sequence[Alarm] = field(default=())

    def __str__(self) -> str:
        lines = [f"version {self.version}, {moment(self.first)} to {moment(self.last)} UTC", ""]
        rows = [["", "now"]]
        rows += [[name, shown(value)] for name, value in self.quality.items()]
        lines += [text_table(rows), ""]
        if self.drifts:
            rows = [["drift", "PSI", "by chance", "JS", "KS"]]
            for drift in self.drifts:
                numbers = (drift.psi, drift.by_chance, drift.jensen_shannon)
                distance = drift.kolmogorov_smirnov
                rows.append(
                    [drift.name, *map(shown, numbers), "" if distance is None else shown(distance)]
                )
            lines += [text_table(rows), ""]
        if not self.alarms:
            return "\n".join([*lines, "no alarm"])
        return "\n".join([*lines, *(f"ALARM  {alarm}" for alarm in self.alarms)])

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold; what is not known is None."""
        return {
            "version": self.version,
            "first": self.first / 1e6,
            "last": self.last / 1e6,
            "quality": _known(self.quality),
            "versions": {str(version): _known(one) for version, one in self.versions.items()},
            "drift": {drift.name: drift.to_dict() for drift in self.drifts},
            "anomalies": [vars(anomaly) for anomaly in self.anomalies],
            "alarms": [vars(alarm) for alarm in self.alarms],
        }

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Writes a page with pictures: one file, that needs nothing else."""
        from tfrec_llm.monitoring.html_report import html_of

        with replace_file(path) as temporary:
            temporary.write_text(html_of(self), encoding="utf-8")

    def to_prometheus(self, path: str | os.PathLike[str]) -> None:
        """Writes measures for the textfile collector of Prometheus' node exporter.

        Raises:
            ImportError: If the extra `[serve]` is not installed.
        """
        from tfrec_llm.monitoring.prometheus import prometheus_text

        with replace_file(path) as temporary:
            temporary.write_bytes(prometheus_text(self))


def moment(time: int) -> str:
    """Returns a time as people read it, in UTC."""
    return f"{datetime.datetime.fromtimestamp(time / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"


def shown(value: float) -> str:
    """Returns a number as people read it."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value == round(value) and abs(value) >= 1 else f"{value:.4g}"


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
