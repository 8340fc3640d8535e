"""Other views of histories: cropped, masked, reordered, with behaviours left out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrec_llm.data.objectives import Batch
from tfrec_llm.data.vocabulary import MASK
from tfrec_llm.errors import DataError

# What belongs to a behaviour and moves with it.
_MOVING = ("items", "behaviors", "times")


def crop(batch: Mapping[str, Any], rng: np.random.Generator, *, rate: float) -> Batch:
    """Keeps a stretch of every history, beginning at a place drawn at random.

    Args:
        batch: Integer arrays `[rows, length]`: `items`, `segments`,
            `positions` and, where there are such, `behaviors` and `times`; one
            user a row, padded on either side. `target_positions` and
            `history_lengths` `[rows, targets]` follow the behaviours that they
            point to; other entries stay as they are.
        rng: Source of what is drawn.
        rate: Share of a history's behaviours that is kept, above 0 up to 1;
            one behaviour or more stays.

    Returns:
        A new batch of the same shapes, padded on the same side; positions
        count from the newest behaviour that was kept.

    Raises:
        ValueError: If `rate` is out of its range.
        DataError: If several users share a row.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> crop(batch, np.random.default_rng(0), rate=0.5)["items"].tolist()
        [[0, 0, 0, 0, 6, 7, 8, 9]]

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"rate must lie in 0..1, above 0, got {rate}.")
    present = _present(batch)
    sizes = present.sum(axis=1)
    kept = np.minimum(np.maximum(_share(sizes, rate), 1), sizes)
    begin = _begin(sizes, kept, rng)
    age = np.cumsum(present, axis=1) - 1
    inside = (age >= begin[:, None]) & (age < (begin + kept)[:, None])
    return _only(batch, present & inside)


def drop(batch: Mapping[str, Any], rng: np.random.Generator, *, rate: float) -> Batch:
    """Leaves out behaviours of every history, drawn at random.

    Args:
        batch: See `crop`.
        rng: Source of what is drawn.
        rate: Share of a history's behaviours that is left out, 0 up to below
            1, rounded down; so one behaviour or more stays.

    Returns:
        A new batch of the same shapes, padded on the same side; positions
        count from the newest behaviour that was kept.

    Raises:
        ValueError: If `rate` is out of its range.
        DataError: If several users share a row.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> drop(batch, np.random.default_rng(0), rate=0.25)["items"].tolist()
        [[0, 0, 3, 4, 7, 8, 9, 10]]
    """
    present = _present(batch)
    return _only(batch, present & ~_drawn(present, rng, rate))


def mask(batch: Mapping[str, Any], rng: np.random.Generator, *, rate: float) -> Batch:
    """Hides behaviours of every history behind the mask, drawn at random.

    Args:
        batch: See `crop`.
        rng: Source of what is drawn.
        rate: Share of a history's behaviours that is hidden, 0 up to below 1,
            rounded down; so one behaviour or more stays visible.

    Returns:
        A new batch of the same shapes; a hidden behaviour keeps its place, its
        kind becomes unknown.

    Raises:
        ValueError: If `rate` is out of its range.
        DataError: If several users share a row.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> mask(batch, np.random.default_rng(0), rate=0.25)["items"].tolist()
        [[3, 4, 1, 1, 7, 8, 9, 10]]

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """
    hidden = _drawn(_present(batch), rng, rate)
    masked = dict(batch)
    masked["items"] = np.where(hidden, MASK, batch["items"]).astype(batch["items"].dtype)
    if "behaviors" in masked:
        masked["behaviors"] = np.where(hidden, 0, batch["behaviors"])
    return masked


def reorder(batch: Mapping[str, Any], rng: np.random.Generator, *, rate: float) -> Batch:
    """Shuffles a stretch of every history, beginning at a place drawn at random.

    Args:
        batch: See `crop`.
        rng: Source of what is drawn.
        rate: Length of the stretch as a share of the history, 0 to 1, rounded
            down.

    Returns:
        A new batch of the same shapes; items and kinds of behaviour move,
        positions and times stay.

    Raises:
        ValueError: If `rate` is out of its range.
        DataError: If several users share a row.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> reorder(batch, np.random.default_rng(0), rate=0.5)["items"].tolist()
        [[3, 4, 5, 8, 9, 6, 7, 10]]

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate must lie in 0..1, got {rate}.")
    present = _present(batch)
    sizes = present.sum(axis=1)
    length = _share(sizes, rate)
    first = (np.argmax(present, axis=1) + _begin(sizes, length, rng))[:, None]
    place = np.arange(present.shape[1])[None]
    inside = (place >= first) & (place < first + length[:, None])
    # Keys within the stretch stay between those before and those behind it.
    key = np.where(inside, first + rng.random(present.shape) * (length[:, None] - 0.5), place)
    order = np.argsort(key, axis=1, kind="stable")
    moving = {name: batch[name] for name in ("items", "behaviors") if name in batch}
    return {**batch, **{name: _taken(values, order) for name, values in moving.items()}}


def _present(batch: Mapping[str, Any]) -> np.ndarray:
    """Returns bool `[rows, length]`: where a behaviour stands."""
    segments = np.asarray(batch["segments"])
    if segments.max(initial=0) > 1:
        raise DataError(
            "Several users share a row of this batch. Augmentation takes one user a row, as "
            "PaddedBatches and padded_batch() give them."
        )
    return segments > 0


def _share(sizes: np.ndarray, rate: float) -> np.ndarray:
    # A product that is whole but for rounding stays so: 0.29 * 100 is 28.999999999999996.
    return np.floor(sizes * rate + 1e-9).astype(np.int64)


def _begin(sizes: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws where a stretch of each length begins within each size."""
    return (rng.random(len(sizes)) * (sizes - lengths + 1)).astype(np.int64)


def _drawn(present: np.ndarray, rng: np.random.Generator, rate: float) -> np.ndarray:
    """Draws that share of each row's behaviours."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"rate must lie in 0..1, below 1, got {rate}.")
    draws = np.where(present, rng.random(present.shape), 2.0)
    rank = np.argsort(np.argsort(draws, axis=1), axis=1)
    return rank < _share(present.sum(axis=1), rate)[:, None]


def _only(batch: Mapping[str, Any], kept: np.ndarray) -> Batch:
    """Moves the behaviours that are kept together, to the side that is not padded."""
    segments, positions = batch["segments"], batch["positions"]
    begins_left = (segments[:, 0] > 0) & (segments[:, -1] == 0)
    padded_right = "history_lengths" in batch or bool(begins_left.any())
    order = np.argsort(kept ^ padded_right, axis=1, kind="stable")
    stays = _taken(kept, order)
    moved = {
        name: np.where(stays, _taken(batch[name], order), 0).astype(batch[name].dtype)
        for name in _MOVING
        if name in batch
    }
    total = stays.sum(axis=1, keepdims=True)
    moved["segments"] = stays.astype(segments.dtype)
    moved["positions"] = np.where(stays, total - np.cumsum(stays, axis=1), 0).astype(
        positions.dtype
    )
    # What asks at a place now asks at the newest behaviour that is left up to there.
    up_to = np.cumsum(kept, axis=1)
    if "target_positions" in batch:
        first = 0 if padded_right else kept.shape[1] - total
        place = first + np.maximum(_taken(up_to, batch["target_positions"]) - 1, 0)
        moved["target_positions"] = place.astype(batch["target_positions"].dtype)
    if "history_lengths" in batch:
        before = batch["history_lengths"]
        left = np.where(before > 0, _taken(up_to, np.maximum(before - 1, 0)), 0)
        moved["history_lengths"] = left.astype(before.dtype)
    return {**batch, **moved}


def _taken(values: Any, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(np.asarray(values), order, axis=1)
