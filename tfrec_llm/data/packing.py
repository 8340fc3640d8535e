"""Packs whole histories into rows of a fixed length."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Packing:
    """Where each sequence of a set lies.

    Attributes:
        sequences: int64 `[n]`, numbers of the sequences, row by row and left
            to right within a row.
        row_starts: int64 `[rows + 1]`; row r holds
            `sequences[row_starts[r]:row_starts[r + 1]]`.
        row_length: Places a row.
        filled: Number of places that hold a behaviour.
    """

    sequences: np.ndarray
    row_starts: np.ndarray
    row_length: int
    filled: int

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.row_starts) - 1

    @property
    def fill(self) -> float:
        """Share of places that hold a behaviour."""
        return self.filled / max(1, self.num_rows * self.row_length)


def pack(lengths: np.ndarray, row_length: int, rng: np.random.Generator) -> Packing:
    """Packs sequences into rows by best fit, longest first.

    Works on the counts of equal lengths: the pattern of lengths that fills a
    row best is repeated while sequences of these lengths last. That takes as
    many steps as there are different lengths, however many sequences there
    are. Which sequence takes which place of its length, and the order of the
    rows, are random.

    Args:
        lengths: Integer `[n]`, length of each sequence; those of length 0 get
            no place.
        row_length: Places a row.
        rng: Source of the shuffles.

    Returns:
        The packing. Its number of rows depends on the lengths only.

    Raises:
        ValueError: If a sequence is longer than a row.

    Example:
        >>> packing = pack(np.array([3, 5, 2, 6]), 8, np.random.default_rng(0))
        >>> packing.num_rows, packing.fill
        (2, 1.0)
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.size and lengths.max() > row_length:
        raise ValueError(
            f"A sequence of {lengths.max()} behaviours does not fit a row of {row_length}. "
            "Cut it with newest() or take longer rows."
        )
    shuffled = rng.permutation(len(lengths))
    shuffled = shuffled[lengths[shuffled] > 0]
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    counts = np.bincount(lengths[shuffled], minlength=row_length + 1)

    patterns, repeats = _patterns(counts.copy(), row_length)
    num_rows = int(sum(repeats))
    pattern_sizes = np.array([len(pattern) for pattern in patterns], dtype=np.int64)
    sizes = np.repeat(pattern_sizes, repeats)
    slot_lengths = np.concatenate(
        [np.tile(pattern, repeat) for pattern, repeat in zip(patterns, repeats, strict=True)]
        or [np.zeros(0, np.int64)]
    )
    sequences = np.empty(len(slot_lengths), np.int64)
    # Equal lengths are handed out in shuffled order: both sides are sorted by length.
    sequences[np.argsort(slot_lengths, kind="stable")] = by_length

    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = rng.permutation(num_rows)
    return Packing(
        sequences=sequences[ranges(starts[order], sizes[order])],
        row_starts=np.concatenate([[0], np.cumsum(sizes[order])]),
        row_length=row_length,
        filled=int(lengths.sum()),
    )


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns `starts[0], starts[0] + 1, ...` for `sizes[0]` steps, then the next, as int64."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - sizes), sizes)


def from_newest(sizes: np.ndarray) -> np.ndarray:
    """Returns `sizes[0] - 1, ..., 1, 0`, then the next: how far each place is from the newest."""
    return np.repeat(sizes, sizes) - 1 - ranges(np.zeros_like(sizes), sizes)


def lay_out(shape: tuple[int, int], place: np.ndarray, values: Any) -> np.ndarray:
    """Returns `shape`, or `[*shape, width]`: values `[n]` or `[n, width]` at flat places, else 0.

    Integers become int32 and floats float32.
    """
    values = np.asarray(values)
    kind = np.float32 if values.dtype.kind == "f" else np.int32
    out = np.zeros((shape[0] * shape[1], *values.shape[1:]), kind)
    out[place] = values
    return out.reshape((*shape, *values.shape[1:]))


def rows_needed(lengths: np.ndarray, row_length: int) -> int:
    """Returns the number of rows that `pack` takes, without packing."""
    counts = np.bincount(lengths, minlength=row_length + 1)
    counts[0] = 0
    return sum(_patterns(counts, row_length)[1])


def _patterns(counts: np.ndarray, row_length: int) -> tuple[list[np.ndarray], list[int]]:
    """Returns patterns of lengths and how many rows follow each, until no count is left."""
    patterns: list[np.ndarray] = []
    repeats: list[int] = []
    longest = row_length
    while True:
        while longest > 0 and not counts[longest]:
            longest -= 1
        if longest == 0:
            return patterns, repeats
        left, pattern = row_length, []
        taken = np.zeros_like(counts)
        while left:
            fitting = np.flatnonzero(counts[1 : left + 1] > taken[1 : left + 1])
            if not len(fitting):
                break
            best = int(fitting[-1]) + 1
            pattern.append(best)
            taken[best] += 1
            left -= best
        used = np.flatnonzero(taken)
        repeat = int((counts[used] // taken[used]).min())
        counts[used] -= taken[used] * repeat
        patterns.append(np.array(pattern, dtype=np.int64))
        repeats.append(repeat)
