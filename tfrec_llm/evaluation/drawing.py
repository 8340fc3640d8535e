"""Bars with intervals, drawn without a display."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfrec_llm.evaluation.metric_report import MetricReport


def draw_bars(
    reports: Mapping[str, "MetricReport"],
    metrics: Sequence[str],
    *,
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draws a panel a metric (without its `@k`), with bars by k and one colour a report.

    Args:
        reports: By name; a single one named "" gets no legend.
        metrics: Names such as `"ndcg@10"`, or `"auc"`.
        path: Where to write the picture; None to only draw.
    """
    # Not pyplot: it would choose a backend and keep every figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, list[str]] = {}
    for name in metrics:
        panels.setdefault(name.partition("@")[0], []).append(name)
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns + 0.5, 2.6 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    width = 0.8 / len(reports)
    for place, (metric, names) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        for number, (label, report) in enumerate(reports.items()):
            values = np.array([report.get(name, np.nan) for name in names])
            bounds = np.array([report.intervals.get(name, (np.nan, np.nan)) for name in names])
            error = np.abs(bounds.T - values)
            where = np.arange(len(names)) + (number - (len(reports) - 1) / 2) * width
            axes.bar(where, values, width, yerr=error, capsize=2, label=label or None)
        axes.set_xticks(np.arange(len(names)), [name.removeprefix(metric) for name in names])
        axes.set_title(metric, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    if "" not in reports:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
