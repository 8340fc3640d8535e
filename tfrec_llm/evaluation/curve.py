"""Pictures of training."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_curve(
    curve: Sequence[dict[str, float]], path: str | os.PathLike[str] | None = None
) -> "Figure":
    """Draws the loss and every validation metric over the epochs.

    Args:
        curve: A dict an epoch, with `epoch`, `loss` and metrics that begin
            with `val_`, as `Recommender.curve` holds them.
        path: Where to save the picture; its ending gives the format.

    Returns:
        The figure; it belongs to no window.

    Example:
        >>> figure = plot_curve([{"epoch": 0, "loss": 4.0, "val_ndcg@10": 0.1}])
        >>> [axis.get_ylabel() for axis in figure.axes]
        ['training loss', 'validation']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    loss_axis = figure.add_subplot()
    epochs = [row["epoch"] + 1 for row in curve]
    # A line through a single epoch would show nothing.
    marker = "o" if len(curve) == 1 else ""
    losses = [row["loss"] for row in curve]
    loss_axis.plot(epochs, losses, color="tab:gray", label="loss", marker=marker)
    loss_axis.set_xlabel("epoch")
    loss_axis.set_ylabel("training loss")
    names = [name for name in (curve[0] if curve else {}) if name.startswith("val_")]
    lines = [*loss_axis.get_lines()]
    if names:
        metric_axis = loss_axis.twinx()
        metric_axis.set_ylabel("validation")
        for name in names:
            values = [row.get(name, float("nan")) for row in curve]
            lines += metric_axis.plot(
                epochs, values, label=name.removeprefix("val_"), marker=marker
            )
        metric_axis.set_ylim(bottom=0)
    names = [str(line.get_label()) for line in lines]
    figure.legend(lines, names, loc="outside upper center", ncols=len(names))
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
