"""Batches for Keras: packed for training, padded for inference."""

import functools
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.objectives import Batch, MaskedBehavior, NextBehavior, Objective
from tfrec_llm.data.packing import from_newest, lay_out, pack, ranges, rows_needed
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import EmptyLogError

if TYPE_CHECKING:
    import tensorflow as tf

BEHAVIORS_A_BATCH = 4096
WINDOWS = ("newest", "random")
# Tells the draws of windows from those of packing.
_WINDOW_DRAWS = 1 << 20


class PackedBatches(keras.utils.PyDataset):
    """Training batches in which several users share a row.

    Every epoch packs anew, by a shuffle that depends on the seed and the
    epoch only. Rows are spread evenly, so batches differ by one row at most.

    Args:
        sequences: Histories, oldest behaviour first.
        objective: What is predicted: `NextBehavior()`, `MaskedBehavior()` or
            any `Objective`.
        max_length: Newest behaviours of a user that are read; older ones are
            not, see `num_cut`.
        row_length: Places a row; None picks a row that holds the longest
            history and fills well.
        batch_size: Rows a batch; None takes about 4,096 behaviours.
        seed: Seed of packing and of what the objective draws.
        windows: Which stretch of a history longer than `max_length` is read:
            `"newest"`, or `"random"`, another one in every epoch.
        prefix_rate: Share of users whose history ends, for an epoch, at a
            place drawn at random, so that earlier behaviours are seen as the
            newest, too.

    Attributes:
        num_cut: Behaviours that the epoch does not read.
        num_short: Users with too few behaviours to give a target.
        packing: The current epoch's packing; `packing.fill` is its fill.

    Raises:
        EmptyLogError: If no user has enough behaviours.
        ValueError: If `row_length` is below the longest history, or an option
            is out of its range.

    Example:
        >>> vocabulary = tfrec_llm.data.Vocabulary(["a", "b", "c"])
        >>> sequences = tfrec_llm.data.UserSequences.from_histories(
        ...     [["a", "b", "c"], ["b", "a"]], vocabulary
        ... )
        >>> batches = PackedBatches(sequences, tfrec_llm.data.NextBehavior(), batch_size=1)
        >>> inputs, targets = batches[0]
        >>> sorted(inputs), targets.shape
        (['items', 'positions', 'segments', 'target_positions'], (1, 8))
    """

    def __init__(
        self,
        sequences: UserSequences,
        objective: Objective,
        *,
        max_length: int = 200,
        row_length: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        windows: str = "newest",
        prefix_rate: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if windows not in WINDOWS:
            raise ValueError(f"windows must be one of {WINDOWS}, got {windows!r}.")
        if not 0.0 <= prefix_rate <= 1.0:
            raise ValueError(f"prefix_rate must lie in 0..1, got {prefix_rate}.")
        if max_length < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(
                f"max_length and batch_size must be positive, got {max_length} and {batch_size}."
            )
        self.sequences = sequences
        self.objective = objective
        self.max_length = max_length
        self.seed = seed
        self.windows = windows
        self.prefix_rate = prefix_rate
        read = np.minimum(sequences.lengths, max_length + objective.lookahead)
        lengths = np.maximum(read - objective.lookahead, 0)
        self.num_short = int((lengths == 0).sum())
        if not lengths.any():
            raise EmptyLogError(
                f"None of {len(sequences)} users has the {1 + objective.lookahead} behaviours that "
                "a target needs."
            )
        self.row_length = row_length or row_length_for(lengths)
        self.batch_size = batch_size or max(1, BEHAVIORS_A_BATCH // self.row_length)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Packs for an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        self._choose_windows()
        rng = np.random.default_rng([self.seed, epoch])
        self.packing = pack(self._lengths, self.row_length, rng)

    def _choose_windows(self) -> None:
        """Sets where the part of every history begins that this epoch reads, and its length."""
        lookahead = self.objective.lookahead
        rng = np.random.default_rng([self.seed, self.epoch, _WINDOW_DRAWS])
        lengths = np.asarray(self.sequences.lengths, np.int64)
        kept = lengths
        if self.prefix_rate:
            shortest = np.minimum(lengths, 1 + lookahead)
            drawn = shortest + (rng.random(len(lengths)) * (lengths - shortest + 1)).astype(int)
            kept = np.where(rng.random(len(lengths)) < self.prefix_rate, drawn, lengths)
        read = np.minimum(kept, self.max_length + lookahead)
        skipped = kept - read
        if self.windows == "random":
            skipped = (rng.random(len(lengths)) * (skipped + 1)).astype(np.int64)
        self.num_cut = int((lengths - read).sum())
        self._starts = np.asarray(self.sequences.offsets[:-1], np.int64) + skipped
        self._lengths = np.maximum(read - lookahead, 0)

    def on_epoch_end(self) -> None:
        """Packs for the next epoch."""
        self.set_epoch(self.epoch + 1)

    @property
    def num_behaviors(self) -> int:
        """Behaviours that an epoch reads."""
        return self.packing.filled

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return self.packing.num_rows

    def __len__(self) -> int:
        return -(-self.packing.num_rows // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Batch, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        batch = self._assemble(*self._rows(index))
        return self.objective(batch, np.random.default_rng([self.seed, self.epoch, index]))

    def to_tf_data(self) -> "tf.data.Dataset":
        """Returns the epochs as an endless `tf.data.Dataset`; give `fit` `steps_per_epoch`."""
        import tensorflow as tf

        def epochs():
            while True:
                for index in range(len(self)):
                    yield self[index]
                self.on_epoch_end()

        spec = keras.tree.map_structure(
            lambda values: tf.TensorSpec([None, values.shape[1]], values.dtype), self[0]
        )
        dataset = tf.data.Dataset.from_generator(epochs, output_signature=spec)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _rows(self, index: int) -> tuple[int, int]:
        """Returns the first row of a batch and the one after its last."""
        num_rows = self.packing.num_rows
        first, last = num_rows * index // len(self), num_rows * (index + 1) // len(self)
        return first, max(last, first + 1)

    def _assemble(self, first: int, last: int) -> Batch:
        """Lays the behaviours of rows `first` to `last` out in arrays, without a loop."""
        packing = self.packing
        bounds = packing.row_starts[first : last + 1]
        users = packing.sequences[bounds[0] : bounds[-1]]
        sizes = self._lengths[users]
        per_row = np.diff(bounds)
        # Places before a user in its row: all behaviours before it less those of earlier rows.
        before = np.cumsum(sizes) - sizes
        row_of_user = np.repeat(np.arange(last - first), per_row)
        row_begin = before[bounds[:-1] - bounds[0]]
        starts = row_of_user * self.row_length + before - row_begin[row_of_user]
        place = ranges(starts, sizes)
        source = ranges(self._starts[users], sizes)
        segment = np.arange(len(users)) - (bounds[:-1] - bounds[0])[row_of_user] + 1

        shape = (last - first, self.row_length)

        laid_out = functools.partial(lay_out, shape, place)
        batch = {
            "items": laid_out(self.sequences.items[source]),
            "segments": laid_out(np.repeat(segment, sizes)),
            "positions": laid_out(from_newest(sizes)),
        }
        if self.sequences.behaviors is not None:
            batch["behaviors"] = laid_out(self.sequences.behaviors[source])
        end = self.sequences.offsets[users + 1]
        follows = source + 1 < np.repeat(end, sizes)
        last_place = len(self.sequences.items) - 1
        following = self.sequences.items[np.minimum(source + 1, last_place)]
        batch["following"] = laid_out(np.where(follows, following, 0))
        return batch


class PaddedBatches(keras.utils.PyDataset):
    """Inference batches: one user a row, padded on the left, users in order.

    Args:
        sequences: Histories, oldest behaviour first; empty ones become rows
            of padding.
        max_length: Newest behaviours of a user that are read.
        batch_size: Rows a batch.

    Example:
        >>> vocabulary = tfrec_llm.data.Vocabulary(["a", "b", "c"])
        >>> sequences = tfrec_llm.data.UserSequences.from_histories(
        ...     [["a", "b", "c"], ["b", "a"]], vocabulary
        ... )
        >>> PaddedBatches(sequences, batch_size=2)[0]["items"].tolist()
        [[0, 0, 0, 0, 0, 3, 4, 5], [0, 0, 0, 0, 0, 0, 4, 3]]
    """

    def __init__(
        self,
        sequences: UserSequences,
        *,
        max_length: int = 200,
        batch_size: int = 256,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.sequences = sequences
        self.max_length = max_length
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.sequences) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        rows = np.arange(
            index * self.batch_size, min((index + 1) * self.batch_size, len(self.sequences))
        )
        return padded_batch(self.sequences, rows, max_length=self.max_length)


def padded_batch(
    sequences: UserSequences, rows: np.ndarray | None = None, *, max_length: int = 200
) -> Batch:
    """Returns histories as one batch, padded on the left to a common length.

    Args:
        sequences: Histories, oldest behaviour first.
        rows: Integer `[rows]`, which of them; None for all.
        max_length: Newest behaviours of a user that are read.

    Returns:
        int32 arrays `[rows, length]`; the length is the longest history's,
        rounded up to a power of two so that few shapes occur, at most
        `max_length`.
    """
    rows = np.arange(len(sequences)) if rows is None else np.asarray(rows)
    sizes = np.minimum(sequences.lengths[rows], max_length)
    longest = int(sizes.max(initial=1))
    length = min(max_length, max(8, 1 << (longest - 1).bit_length()))
    place = ranges((np.arange(len(rows)) + 1) * length - sizes, sizes)
    source = ranges(np.asarray(sequences.offsets)[rows + 1] - sizes, sizes)

    laid_out = functools.partial(lay_out, (len(rows), length), place)
    batch = {
        "items": laid_out(sequences.items[source]),
        "segments": laid_out(1),
        "positions": laid_out(from_newest(sizes)),
    }
    if sequences.behaviors is not None:
        batch["behaviors"] = laid_out(sequences.behaviors[source])
    return batch


def next_batches(
    data: BehaviorLog | UserSequences, *, vocabulary: Vocabulary | None = None, **options: Any
) -> PackedBatches:
    """Returns packed batches for `NextBehaviorModel`.

    Args:
        data: A log, or its sequences.
        vocabulary: Of a log's items; None makes one of the log.
        **options: Of `PackedBatches`.
    """
    return PackedBatches(sequences_of(data, vocabulary), NextBehavior(), **options)


def masked_batches(
    data: BehaviorLog | UserSequences,
    *,
    vocabulary: Vocabulary | None = None,
    mask_rate: float = 0.2,
    newest_rate: float = 0.2,
    **options: Any,
) -> PackedBatches:
    """Returns packed batches for `MaskedBehaviorModel`.

    Args:
        data: A log, or its sequences.
        vocabulary: Of a log's items; None makes one of the log.
        mask_rate: See `MaskedBehavior`.
        newest_rate: See `MaskedBehavior`.
        **options: Of `PackedBatches`.
    """
    objective = MaskedBehavior(mask_rate=mask_rate, newest_rate=newest_rate)
    return PackedBatches(sequences_of(data, vocabulary), objective, **options)


def padded_batches(
    data: BehaviorLog | UserSequences, *, vocabulary: Vocabulary | None = None, **options: Any
) -> PaddedBatches:
    """Returns padded batches for `predict`.

    Args:
        data: A log, or its sequences.
        vocabulary: Of a log's items; None makes one of the log.
        **options: Of `PaddedBatches`.
    """
    return PaddedBatches(sequences_of(data, vocabulary), **options)


def sequences_of(data: BehaviorLog | UserSequences, vocabulary: Vocabulary | None) -> UserSequences:
    """Returns sequences as they are, and those of a log; its own vocabulary where None is given."""
    if isinstance(data, UserSequences):
        return data
    return UserSequences.from_log(data, vocabulary or Vocabulary.fit(data.item))


def row_length_for(lengths: np.ndarray) -> int:
    """Returns the shortest row, a multiple of 8, that holds all and is filled to 95 %.

    Longer rows cost attention between users that do not see each other.
    """
    longest = -(-int(lengths.max()) // 8) * 8
    best, best_fill = longest, 0.0
    for candidate in (longest, longest * 5 // 4, longest * 3 // 2, longest * 2, longest * 4):
        candidate = -(-candidate // 8) * 8
        fill = lengths.sum() / (rows_needed(lengths, candidate) * candidate)
        if fill > best_fill + 0.02:
            best, best_fill = candidate, fill
        if best_fill >= 0.95:
            break
    return best
