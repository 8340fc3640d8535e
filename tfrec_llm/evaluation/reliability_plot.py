"""Observed over predicted rates, drawn without a display."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfrec_llm.evaluation.click_report import ClickReport


def plot_reliability(
    reports: Mapping[str, "ClickReport"], path: str | os.PathLike[str] | None = None
) -> "Figure":
    """Draws how often there was a click over the probability that was predicted.

    Points on the diagonal are true probabilities. A point's bar is two standard deviations by
    chance to each side: one that misses the diagonal is wrong by more than chance. Below stands
    which probabilities are predicted how often; the last bar holds what lies beyond the picture.

    Args:
        reports: By the name to show, a `Comparison` for instance; a single one named "" gets no
            legend.
        path: Where to write the picture (its ending gives the format); None to only draw.

    Returns:
        The figure; it belongs to no window.

    Raises:
        ValueError: If there is no report.

    Example:
        >>> from tfrec_llm.evaluation import evaluate_probabilities
        >>> report = evaluate_probabilities([1, 0, 1], [0.9, 0.2, 0.6])
        >>> figure = plot_reliability({"model": report})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['observed rate', 'share']
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not reports:
        raise ValueError("There is no report to draw.")
    figure = Figure(figsize=(4.8, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    every = [report.reliability for report in reports.values()]
    # Rare clicks fill a corner of the unit square: that corner is drawn.
    highest = max(float(max(bins.probability.max(), bins.rate.max())) for bins in every)
    highest = min(1.0, 1.1 * highest) or 1.0
    axes.plot([0.0, highest], [0.0, highest], color="tab:gray", linewidth=0.8)
    borders = np.linspace(0.0, highest, 41)
    for name, report in reports.items():
        bins, scored = report.reliability, report.impressions
        label = f"{name}, error {report['calibration_error']:.4f}" if name else None
        spread = 2.0 * bins.deviation
        axes.errorbar(
            bins.probability, bins.rate, yerr=spread, marker="o", ms=4, lw=1, capsize=2, label=label
        )
        shares = scored.weights / scored.weights.sum()
        shown = np.minimum(scored.probabilities, highest)
        below.hist(shown, borders, weights=shares, histtype="step")
    axes.set_ylabel("observed rate")
    axes.set(xlim=(0.0, highest), ylim=(0.0, highest))
    below.set_ylabel("share")
    below.set_xlabel("predicted probability")
    for each in (axes, below):
        each.spines[["top", "right"]].set_visible(False)
    if "" not in reports:
        axes.legend(fontsize=9, frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
