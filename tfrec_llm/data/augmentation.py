"""Other views of histories: cropped, masked, reordered, with behaviours left out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrec_llm.data.objectives import Batch
from tfrec_llm.data.vocabulary import MASK

# What belongs to a behaviour and moves with it.
_MOVING = ("items", "behaviors", "times")


def crop(batch: Mapping[str, Any], rng: np.random.Generator, *, rate: float) -> Batch:
    """Keeps a stretch of every history, beginning at a place drawn at random.

    Args:
        batch: Integer arrays `[rows, length]`: `items`, `segments`,
            `positions` and, where there are such, `behaviors` and `times`; one
            user a row, padded on either side, or several packed. What
            `target_positions` and `history_lengths` `[rows, targets]` point to
            is followed; other entries stay as they are. A mask that asks for
            what comes next stays and is no behaviour.
        rng: Source of what is drawn.
        rate: Share of a history's behaviours that is kept, above 0 up to 1;
            one behaviour or more stays.

    Returns:
        A new batch of the same shapes, padded on the same side; positions
        count from the newest behaviour that was kept.

    Raises:
        ValueError: If `rate` is out of its range.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> crop(batch, np.random.default_rng(0), rate=0.5)["items"].tolist()
        [[0, 0, 0, 0, 4, 5, 6, 7]]

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"rate must lie in 0..1, above 0, got {rate}.")
    places = _Places(batch)
    kept = np.minimum(np.maximum(_share(places.sizes, rate), 1), places.sizes)
    return _only(batch, places, places.asking | places.stretch(kept, rng))


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

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> drop(batch, np.random.default_rng(0), rate=0.25)["items"].tolist()
        [[0, 0, 3, 4, 7, 8, 9, 10]]
    """
    places = _Places(batch)
    return _only(batch, places, places.present & ~places.drawn(rng, rate))


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

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> mask(batch, np.random.default_rng(0), rate=0.25)["items"].tolist()
        [[3, 4, 1, 1, 7, 8, 9, 10]]

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """
    hidden = _Places(batch).drawn(rng, rate)
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

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(np.arange(3, 11, dtype=np.int32), [0, 8])
        >>> batch = tfrec_llm.data.PaddedBatches(sequences)[0]
        >>> reorder(batch, np.random.default_rng(0), rate=0.5)["items"].tolist()
        [[3, 4, 7, 5, 6, 8, 9, 10]]

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate must lie in 0..1, got {rate}.")
    places = _Places(batch)
    length = _share(places.sizes, rate)
    inside = places.stretch(length, rng)
    # Keys within the stretch stay between those before and those behind it.
    place = np.broadcast_to(np.arange(inside.shape[1]), inside.shape)
    least = np.where(inside, place, inside.shape[1]).ravel()
    first = np.full(len(length), inside.shape[1])
    np.minimum.at(first, places.owner.ravel(), least)
    drawn = first[places.owner] + rng.random(inside.shape) * (length[places.owner] - 0.5)
    order = np.argsort(np.where(inside, drawn, place), axis=1, kind="stable")
    moving = {name: batch[name] for name in ("items", "behaviors") if name in batch}
    return {**batch, **{name: _taken(values, order) for name, values in moving.items()}}


class _Places:
    """Where the behaviours of each history stand, several histories a row or one.

    Attributes:
        present: bool `[rows, length]`, where something stands.
        asking: bool, where a mask is the newest of its history: it asks, and is no behaviour.
        owner: int `[rows, length]`, number of the history that stands there.
        sizes: int `[histories]`, behaviours of each.
        first: int `[histories]`, the place in its row where each begins.
    """

    def __init__(self, batch: Mapping[str, Any]):
        segments = np.asarray(batch["segments"])
        rows, length = segments.shape
        width = int(segments.max(initial=0)) + 1
        self.present = segments > 0
        newest = np.asarray(batch["positions"]) == 0
        self.asking = self.present & newest & (np.asarray(batch["items"]) == MASK)
        self.owner = segments + width * np.arange(rows)[:, None]
        self._free = self.present & ~self.asking
        self.sizes = np.bincount(self.owner[self._free], minlength=rows * width)
        place = np.broadcast_to(np.arange(length), segments.shape)
        self.first = np.zeros(rows * width, np.int64)
        # Of several values for a history the last one holds: the first place.
        self.first[self.owner[self.present][::-1]] = place[self.present][::-1]
        self._age = place - self.first[self.owner]

    def stretch(self, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns bool `[rows, length]`: a stretch of each history, of that length, drawn."""
        begin = (rng.random(len(lengths)) * (self.sizes - lengths + 1)).astype(np.int64)
        inside = (self._age >= begin[self.owner]) & (self._age < (begin + lengths)[self.owner])
        return self._free & inside

    def drawn(self, rng: np.random.Generator, rate: float) -> np.ndarray:
        """Returns bool `[rows, length]`: that share of each history's behaviours, drawn."""
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must lie in 0..1, below 1, got {rate}.")
        owner = self.owner[self._free]
        order = np.lexsort((rng.random(len(owner)), owner))
        begins = np.cumsum(self.sizes) - self.sizes
        rank = np.empty(len(owner), np.int64)
        rank[order] = np.arange(len(owner)) - begins[owner[order]]
        chosen = np.zeros_like(self._free)
        chosen[self._free] = rank < _share(self.sizes, rate)[owner]
        return chosen


def _share(sizes: np.ndarray, rate: float) -> np.ndarray:
    # A product that is whole but for rounding stays so: 0.29 * 100 is 28.999999999999996.
    return np.floor(sizes * rate + 1e-9).astype(np.int64)


def _only(batch: Mapping[str, Any], places: _Places, kept: np.ndarray) -> Batch:
    """Moves what is kept together, to the side that is not padded."""
    segments, positions = batch["segments"], batch["positions"]
    length, owner = kept.shape[1], places.owner
    begins_left = (segments[:, 0] > 0) & (segments[:, -1] == 0)
    padded_right = "history_lengths" in batch or bool(begins_left.any())
    order = np.argsort(kept ^ padded_right, axis=1, kind="stable")
    stays = _taken(kept, order)
    # In a row up to a place, in a row before a history, and of a history.
    up_to = np.cumsum(kept, axis=1)
    width = len(places.first) // len(kept)
    row_of_history = np.arange(len(places.first)) // width
    before = up_to[row_of_history, places.first] - kept[row_of_history, places.first]
    count = np.bincount(owner[kept], minlength=len(before))
    newer = np.where(kept, (before + count)[owner] - up_to, 0)
    moving = {name: batch[name] for name in _MOVING if name in batch}
    moving |= {"segments": segments, "positions": newer.astype(positions.dtype)}
    moved = {
        name: np.where(stays, _taken(values, order), 0).astype(values.dtype)
        for name, values in moving.items()
    }
    # What asks at a place now asks at the newest behaviour that is left up to there.
    if "target_positions" in batch:
        asked = np.asarray(batch["target_positions"])
        own = _taken(owner, asked)
        offset = 0 if padded_right else length - stays.sum(axis=1, keepdims=True)
        place = offset + np.maximum(_taken(up_to, asked), before[own] + 1) - 1
        place = np.where(_taken(places.present, asked), place, asked)
        moved["target_positions"] = place.astype(asked.dtype)
        if "history_lengths" in batch:
            known = np.asarray(batch["history_lengths"])
            newest = np.clip(places.first[own] + known - 1, 0, length - 1)
            left = np.where(known > 0, _taken(up_to, newest) - before[own], 0)
            moved["history_lengths"] = left.astype(known.dtype)
    return {**batch, **moved}


def _taken(values: Any, order: np.ndarray) -> np.ndarray:
    return np.take_along_axis(np.asarray(values), order, axis=1)
