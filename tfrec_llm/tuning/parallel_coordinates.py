"""A picture of many settings and how good each is."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_parallel_coordinates(
    rows: Sequence[Mapping[str, Any]],
    *,
    score: str,
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draws an upright axis a column and a line a row, coloured by its score.

    What every row has alike is left out. Numbers that span more than a factor
    of ten have a logarithmic axis. A row that lacks a value has a gap there.

    Args:
        rows: Values by column.
        score: The column of the scores; it stands last.
        path: Where to save the picture; its ending gives the format.

    Returns:
        The figure; it belongs to no window.

    Example:
        >>> rows = [{"dropout": 0.1, "score": 0.5}, {"dropout": 0.3, "score": 0.6}]
        >>> [text.get_text() for text in draw_parallel_coordinates(rows, score="score").axes[0]
        ...  .get_xticklabels()]
        ['dropout', 'score']
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for name in row if name != score))
    varied = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    columns = [*varied, score]
    figure = Figure(figsize=(1.3 * len(columns) + 1.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    places = np.full((len(rows), len(columns)), np.nan)
    for place, name in enumerate(columns):
        places[:, place], marks = _scaled([row.get(name) for row in rows])
        axes.axvline(place, color="0.8", linewidth=1, zorder=0)
        for height, text in marks:
            axes.annotate(
                text, (place, height), (3, 0), textcoords="offset points", fontsize=7, va="center"
            )
    order = np.argsort(places[:, -1], kind="stable")
    colours = colormaps["viridis"]
    for row in order:
        height = places[row, -1]
        axes.plot(
            range(len(columns)),
            places[row],
            color=colours(float(height)),
            linewidth=2.5 if row == order[-1] else 1.2,
            alpha=0.9,
        )
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(columns) - 0.4)
    axes.spines[:].set_visible(False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _scaled(values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Returns heights in 0..1, NaN for what is missing, and marks at some of them."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        logarithmic = low > 0 and high / low > 10
        scale = np.log if logarithmic else np.asarray
        bounds = scale(np.array([low, high]))
        span = max(float(bounds[1] - bounds[0]), 1e-12)
        heights = (scale(numbers) - bounds[0]) / span
        few = sorted(set(numbers[~np.isnan(numbers)].tolist()))
        marked = few if len(few) <= 6 else [low, high]
        return heights, [(float((scale(v) - bounds[0]) / span), f"{v:.4g}") for v in marked]
    kinds = sorted({str(value) for value in present})
    step = 1 / max(len(kinds) - 1, 1)
    heights = [np.nan if value is None else kinds.index(str(value)) * step for value in values]
    return np.array(heights), [(place * step, kind) for place, kind in enumerate(kinds)]
