"""Two views of every history, for models that learn to tell histories apart."""

from dataclasses import dataclass

import numpy as np

from tfrec_llm.data import augmentation
from tfrec_llm.data.objectives import Batch
from tfrec_llm.data.whole_history import newest_places


@dataclass(frozen=True)
class TwoViews:
    """Every history is seen twice, each time with something else left out, hidden or turned round.

    Each view of a history is cropped, masked or reordered, drawn anew and for
    each alike. Row `2r` of the inputs holds the first views of row `r`, the
    row behind it the second ones. The targets are numbers from 1 on, equal for
    the two views of a history; a history of one behaviour has none, as its
    views would be one.

    Args:
        crop: Share of a history that a cropped view keeps; None for no such
            views. Where all three are None, views differ by dropout only.
        mask: Share of a history that a masked view hides; None for none.
        reorder: Share of a history that a reordered view shuffles; None for
            none.
        max_histories: Targets a row; the histories beyond have none.

    Raises:
        ValueError: If a share is out of its range.

    Example:
        >>> batch = {
        ...     "items": np.array([[3, 4, 5, 6, 7]]),
        ...     "segments": np.array([[1, 1, 1, 2, 2]]),
        ...     "positions": np.array([[2, 1, 0, 1, 0]]),
        ...     "following": np.zeros((1, 5), np.int32),
        ... }
        >>> views = TwoViews(crop=None, reorder=None, mask=0.5, max_histories=2)
        >>> inputs, targets = views(batch, np.random.default_rng(0))
        >>> inputs["items"].tolist(), inputs["target_positions"].tolist(), targets.tolist()
        ([[3, 4, 1, 1, 7], [3, 1, 5, 1, 7]], [[2, 4], [2, 4]], [[1, 2], [1, 2]])

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """

    crop: float | None = 0.6
    mask: float | None = 0.3
    reorder: float | None = 0.6
    max_histories: int = 64

    lookahead = 0

    def __post_init__(self) -> None:
        for name in ("crop", "mask", "reorder"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 < rate < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, or be None; got {rate}.")
        if self.max_histories < 1:
            raise ValueError(f"max_histories must be positive, got {self.max_histories}.")

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[Batch, np.ndarray]:
        segments, positions = batch["segments"], batch["positions"]
        rows, length = segments.shape
        names = [name for name in batch if name != "following"]
        # Where the newest behaviour of each history stands, in order.
        row_of, newest = np.nonzero((positions == 0) & (segments > 0))
        row, place = np.nonzero(segments)
        before = np.searchsorted(row_of, np.arange(rows))
        number = before[row] + segments[row, place] - 1
        # A history a row, padded on the left, as augmentation takes them.
        width = int(positions.max(initial=0)) + 1
        alone = {name: np.zeros((len(newest), width), np.int32) for name in names}
        for name in names:
            alone[name][number, width - 1 - positions[row, place]] = batch[name][row, place]
        alone["segments"] = np.minimum(alone["segments"], 1)

        both = {name: np.zeros((rows, 2, length), np.int32) for name in names}
        for side in range(2):
            view = self._view(alone, rng)
            number, column = np.nonzero(view["segments"])
            back = newest[number] - view["positions"][number, column]
            view["segments"] = view["segments"] * segments[row_of, newest][:, None]
            for name in names:
                both[name][row_of[number], side, back] = view[name][number, column]
        inputs = {name: values.reshape(2 * rows, length) for name, values in both.items()}

        places, present = newest_places(batch, self.max_histories)
        several = (alone["segments"].sum(axis=1) > 1).astype(np.int32)
        kept = segments[row_of, newest] <= self.max_histories
        targets = np.zeros(present.shape, np.int32)
        targets[present] = (several * np.arange(1, len(newest) + 1))[kept]
        inputs["target_positions"] = np.repeat(places, 2, axis=0)
        return inputs, np.repeat(targets, 2, axis=0)

    def _view(self, alone: Batch, rng: np.random.Generator) -> Batch:
        """Returns a view of every history, one a row."""
        ways = [
            (way, rate)
            for way, rate in (
                (augmentation.crop, self.crop),
                (augmentation.mask, self.mask),
                (augmentation.reorder, self.reorder),
            )
            if rate is not None
        ]
        view = {name: values.copy() for name, values in alone.items()}
        drawn = rng.integers(max(1, len(ways)), size=len(alone["items"]))
        for number, (way, rate) in enumerate(ways):
            chosen = drawn == number
            if not chosen.any():
                continue
            changed = way({name: values[chosen] for name, values in alone.items()}, rng, rate=rate)
            for name in view:
                view[name][chosen] = changed[name]
        return view
