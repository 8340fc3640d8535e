"""Targets of whole histories: one each, at its newest behaviour."""

from dataclasses import dataclass

import numpy as np

from tfrec_llm.data.objectives import Batch


@dataclass(frozen=True)
class WholeHistory:
    """Every history of a row has one target, at its newest behaviour.

    Args:
        max_histories: Targets a row; the histories beyond have none.

    Example:
        >>> batch = {
        ...     "items": np.array([[3, 4, 5, 0]]),
        ...     "segments": np.array([[1, 1, 2, 0]]),
        ...     "positions": np.array([[1, 0, 0, 0]]),
        ...     "following": np.zeros((1, 4), np.int32),
        ... }
        >>> inputs, present = WholeHistory(3)(batch, np.random.default_rng(0))
        >>> inputs["target_positions"].tolist(), present.tolist()
        ([[1, 2, 0]], [[True, True, False]])
    """

    max_histories: int

    lookahead = 0

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[Batch, np.ndarray]:
        """Returns the inputs and whether there is a history, bool `[rows, max_histories]`."""
        inputs = {name: values for name, values in batch.items() if name != "following"}
        places, present = newest_places(batch, self.max_histories)
        inputs["target_positions"] = places
        return inputs, present


def newest_places(batch: Batch, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the newest behaviour of each history of a row stands.

    Args:
        batch: Integer arrays `[rows, length]`, `segments` and `positions`.
        count: Most histories a row.

    Returns:
        int32 `[rows, count]`, the places of the histories in the order of their segments, and
        bool `[rows, count]`, whether there is such a history.
    """
    segments = batch["segments"]
    newest = (batch["positions"] == 0) & (segments > 0) & (segments <= count)
    row, place = np.nonzero(newest)
    number = segments[row, place] - 1
    places = np.zeros((len(segments), count), np.int32)
    present = np.zeros((len(segments), count), bool)
    places[row, number] = place
    present[row, number] = True
    return places, present
