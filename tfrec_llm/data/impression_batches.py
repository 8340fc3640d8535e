"""Batches of impressions: who was shown what, after which behaviours, and what came of it."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.packing import from_newest, lay_out, pack, ranges
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import MASK, Vocabulary
from tfrec_llm.errors import DataError, EmptyLogError

if TYPE_CHECKING:
    from tfrec_llm.data.feature_encoding import FeatureEncoding

HISTORIES = ("own", "shared", "masked")


class RankingBatches(keras.utils.PyDataset):
    """Impressions, each beside what its user had done before it.

    A row packs the histories of several users, and asks behind each for its
    impressions. Nothing of a history is read that is not older than the
    impression: behaviours at the very time of an impression are none of its
    history.

    `histories` says how they are read:

    - `"own"`: an impression has its own reading of the `max_length` newest
      behaviours before it; impressions of a user at one time share it. That
      is what probabilities are computed on.
    - `"shared"`: impressions of a user at different times share a reading,
      and each asks at the newest behaviour before it: many times faster, but
      for causal encoders only. An impression then reads `max_length` newest
      behaviours, or at least half as many.
    - `"masked"`: as `"own"`, with the mask behind each history, for encoders
      that were trained to fill masks.

    Args:
        sequences: What the users did, with times.
        users: int `[n]`, the row in `sequences` of each impression's user, -1
            for a user of whom no behaviour is known.
        times: int64 `[n]`, when each impression was made, in the unit of
            `sequences.times`.
        candidates: int `[n]`, index of the item shown.
        labels: Float `[n]`, or several of them by name; None for inference.
        profiles: int `[n]`, index of the user's profile, for models that have
            a `user_embedding`; None leaves them out.
        context: Encoded features of the impressions by name, `[n]` or
            `[n, width]`, as `FeatureEncoding.encode` gives them.
        weights: Float `[n]`, weights of the impressions.
        max_length: Newest behaviours of a user that are read.
        batch_size: Impressions a batch, about.
        histories: See above.
        shuffle: Whether every epoch packs anew.
        seed: Of the packing.

    Attributes:
        packing: How readings lie in rows in the current epoch.

    Raises:
        EmptyLogError: If there are no impressions.
        DataError: If arrays do not fit together, the sequences have no times,
            or a label is missing or outside 0..1.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(
        ...     np.array([3, 4, 5], np.int32), np.array([0, 3]), times=np.array([10, 20, 30])
        ... )
        >>> batches = RankingBatches(
        ...     sequences, users=[0, 0], times=[20, 40], candidates=[7, 8], labels=[0, 1]
        ... )
        >>> inputs, labels, weights = batches[0]
        >>> inputs["items"].tolist()
        [[3, 4, 5, 3, 0, 0, 0, 0]]
        >>> inputs["target_positions"][0, :2].tolist(), inputs["candidates"][0, :2].tolist()
        ([2, 3], [8, 7])
    """

    def __init__(
        self,
        sequences: UserSequences,
        *,
        users: Any,
        times: Any,
        candidates: Any,
        labels: Any = None,
        profiles: Any = None,
        context: Mapping[str, Any] | None = None,
        weights: Any = None,
        max_length: int = 200,
        batch_size: int = 1024,
        histories: str = "own",
        shuffle: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if histories not in HISTORIES:
            raise ValueError(f"histories must be one of {HISTORIES}, got {histories!r}.")
        if max_length < 1 or batch_size < 1:
            raise ValueError(
                f"max_length and batch_size must be positive, got {max_length} and {batch_size}."
            )
        if sequences.times is None:
            raise DataError(
                "The sequences have no times, so what was done before an impression is not known. "
                "Make them with UserSequences.from_log()."
            )
        self.sequences = sequences
        self.candidates = np.asarray(candidates, np.int32)
        count = len(self.candidates)
        if not count:
            raise EmptyLogError("There are no impressions.")
        self.labels = _truth(labels, count)
        weights = np.ones(count) if weights is None else weights
        self.weights = _column("weights", weights, count, np.float32)
        self.features = {
            f"context_{name}": _column(f"context[{name!r}]", values, count)
            for name, values in (context or {}).items()
        }
        if profiles is not None:
            self.features["profiles"] = _column("profiles", profiles, count, np.int32)
        self.max_length = max_length
        self.batch_size = batch_size
        self.histories = histories
        self.shuffle = shuffle
        self.seed = seed
        users = _column("users", users, count, np.int64)
        times = _column("times", times, count, np.int64)
        self._known = behaviors_before(sequences, users, times)
        self._lay_readings(users)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Packs for an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch if self.shuffle else 0])
        self.packing = pack(self._room, self.row_length, rng)

    def on_epoch_end(self) -> None:
        """Packs for the next epoch."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        # A batch is a row at the least.
        return max(1, min(round(len(self.candidates) / self.batch_size), self.packing.num_rows))

    def __getitem__(self, index: int) -> Any:
        """Returns inputs, labels and weights of a batch; the inputs alone without labels.

        Labels are `[rows, targets, 1]`, weights `[rows, targets]`, 0 where there is no impression.
        The inputs are integer arrays: `items`, `segments`, `positions` and, where the sequences
        have them, `behaviors`, `[rows, length]`; `target_positions`, `history_lengths` and
        `candidates`, `[rows, targets]`, and the features beside them.
        """
        readings, rows, starts = self._readings(index)
        begins, ends = self._begins[readings], self._ends[readings]
        sizes, masked = ends - begins, self.histories == "masked"
        shape = int(rows[-1]) + 1, self.row_length
        place = ranges(rows * self.row_length + starts, sizes)
        source = ranges(self._starts[readings] + begins, sizes)
        segment = np.arange(len(readings)) - np.searchsorted(rows, rows) + 1
        laid_out = functools.partial(lay_out, shape, place)
        inputs = {
            "items": laid_out(self.sequences.items[source]),
            "segments": laid_out(np.repeat(segment, sizes)),
            "positions": laid_out(from_newest(sizes) + masked),
        }
        if self.sequences.behaviors is not None:
            inputs["behaviors"] = laid_out(self.sequences.behaviors[source])
        if masked:
            inputs["items"][rows, starts + sizes] = MASK
            inputs["segments"][rows, starts + sizes] = segment

        shape, place, asked, reading = self._targets(readings, rows)
        read = self._known[asked] - begins[reading]
        newest = starts[reading] + (sizes[reading] if masked else np.maximum(read - 1, 0))
        laid_out = functools.partial(lay_out, shape, place)
        inputs |= {
            "target_positions": laid_out(newest),
            "history_lengths": laid_out(read),
            "candidates": laid_out(self.candidates[asked]),
        }
        inputs |= {name: laid_out(values[asked]) for name, values in self.features.items()}
        if self.labels is None:
            return inputs
        weights = laid_out(self.weights[asked])
        if isinstance(self.labels, dict):
            return (
                inputs,
                {n: laid_out(values[asked]) for n, values in self.labels.items()},
                weights,
            )
        return inputs, laid_out(self.labels[asked]), weights

    def impressions(self, index: int) -> np.ndarray:
        """Returns the number of the impression at each target, int `[rows, targets]`, or -1."""
        readings, rows, _ = self._readings(index)
        shape, place, asked, _ = self._targets(readings, rows)
        return lay_out(shape, place, asked + 1) - 1

    def _readings(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the readings of a batch, their rows, and where in these they start."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        packing = self.packing
        first, last = (packing.num_rows * at // len(self) for at in (index, index + 1))
        bounds = packing.row_starts[first : last + 1]
        readings = packing.sequences[bounds[0] : bounds[-1]]
        per_row = np.diff(bounds)
        room = self._room[readings]
        before = np.cumsum(room) - room
        rows = np.repeat(np.arange(last - first), per_row)
        return readings, rows, before - before[bounds[:-1] - bounds[0]][rows]

    def _targets(self, readings: np.ndarray, rows: np.ndarray) -> tuple[Any, ...]:
        """Returns the targets' shape, their flat places, and their impressions and readings."""
        counts = np.diff(self._bounds)[readings]
        before = np.cumsum(counts) - counts
        before -= before[np.searchsorted(rows, rows)]
        shape = int(rows[-1]) + 1, self.num_targets
        place = ranges(rows * self.num_targets + before, counts)
        asked = self._impressions[ranges(self._bounds[readings], counts)]
        return shape, place, asked, np.repeat(np.arange(len(readings)), counts)

    def _lay_readings(self, users: np.ndarray) -> None:
        """Finds what is read for which impressions, and how much room it takes in a row."""
        known, length = self._known, self.max_length
        if self.histories == "shared":
            step = max(1, length // 2)
            window = np.maximum(0, -(-(known - length) // step))
            begin = window * step
        else:
            begin = np.maximum(0, known - length)
            window = known
        # Who has no history is like all others who have none.
        users = np.where(known > 0, users, -1)
        order = np.lexsort((known, window, users))
        users, window, begin, known = (values[order] for values in (users, window, begin, known))
        new = np.append(True, (users[1:] != users[:-1]) | (window[1:] != window[:-1]))
        first = np.flatnonzero(new)
        sizes = np.diff(np.append(first, len(users)))
        longest = known[first + sizes - 1] - begin[first] + (self.histories == "masked")
        self.row_length = max(8, -(-int(longest.max()) // 8) * 8)
        # As many targets a row as there are to as many behaviours, and some more.
        wanted = 1.25 * self.row_length * len(users) / np.maximum(longest, 1).sum()
        self.num_targets = max(8, -(-int(min(wanted, 4 * self.row_length)) // 8) * 8)

        place = np.arange(len(users)) - np.repeat(first, sizes)
        first = np.flatnonzero(new | (place % self.num_targets == 0))
        self._impressions = order
        self._bounds = np.append(first, len(users))
        self._starts = np.where(users[first] < 0, 0, self.sequences.offsets[users[first]])
        self._begins = begin[first]
        self._ends = known[self._bounds[1:] - 1]
        # Room for both: readings that fill a row by it overfill neither its places nor its targets.
        counts = np.diff(self._bounds)
        for_targets = -(-counts * self.row_length // self.num_targets)
        self._room = np.maximum(
            self._ends - self._begins + (self.histories == "masked"), for_targets
        )


def behaviors_before(sequences: UserSequences, users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns how many behaviours a user had strictly before a time.

    Args:
        sequences: With times.
        users: int `[n]`, rows in `sequences`, -1 for none.
        times: int64 `[n]`.

    Returns:
        int64 `[n]`, 0 for the user -1.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(
        ...     np.array([3, 4, 5], np.int32), np.array([0, 3]), times=np.array([10, 20, 20])
        ... )
        >>> behaviors_before(sequences, np.array([0, 0, -1]), np.array([20, 21, 99]))
        array([1, 3, 0])
    """
    assert sequences.times is not None
    num_behaviors = len(sequences.items)
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    user = np.concatenate([users, owner])
    time = np.concatenate([times, sequences.times])
    is_behavior = np.arange(len(user)) >= len(users)
    # At equal times impressions stand first, and so do not count the behaviours.
    order = np.lexsort((is_behavior, time, user))
    before = np.empty(len(user), np.int64)
    before[order] = np.cumsum(is_behavior[order])
    before = before[: len(users)]
    offsets = np.append(sequences.offsets[:-1], num_behaviors)
    return np.where(users < 0, 0, before - offsets[users])


def ranking_batches(
    impressions: BehaviorLog,
    vocabulary: Vocabulary,
    *,
    candidates: Vocabulary | None = None,
    profiles: Vocabulary | None = None,
    context: "FeatureEncoding | None" = None,
    labels: str | Sequence[str] | Mapping[str, str] | None = "label",
    behaviors: Sequence[str] | None = None,
    **options: Any,
) -> RankingBatches:
    """Returns the batches of an impression log.

    Args:
        impressions: Impressions, a row each: user, item shown, time, label.
            `impressions.history` holds what users did; of it an impression
            sees what is older.
        vocabulary: Of the items of the histories.
        candidates: Of the items shown; None for `vocabulary`.
        profiles: Of the users, for models with a `user_embedding`.
        context: Fitted encoding of context columns, such as hour or device.
        labels: Column of the labels; for several tasks several, or the column
            of each task by its name, `{"click": "clicked", ...}`; None for
            inference.
        behaviors: See `UserSequences.from_log`.
        **options: Of `RankingBatches`.

    Raises:
        EmptyLogError: If there are no impressions, or there is no history.
        MissingColumnError: If a column is missing.
        DataError: If a label is missing.
    """
    impressions.require_complete()
    if impressions.history is None:
        raise EmptyLogError(
            "The impressions have no history. Attach what users did before, with "
            "BehaviorLog(impressions.table, history=log)."
        )
    sequences = UserSequences.from_log(impressions.history, vocabulary, behaviors=behaviors)
    if isinstance(labels, str):
        truth: Any = impressions.column(labels).to_numpy()
    elif labels is not None:
        columns = labels if isinstance(labels, Mapping) else {name: name for name in labels}
        truth = {task: impressions.column(name).to_numpy() for task, name in columns.items()}
    else:
        truth = None
    return RankingBatches(
        sequences,
        users=sequences.rows_of(impressions.user),
        times=impressions.times(),
        candidates=(candidates or vocabulary).encode(impressions.item, on_unknown="unknown"),
        labels=truth,
        profiles=None
        if profiles is None
        else profiles.encode(impressions.user, on_unknown="unknown"),
        context=None if context is None else context.encode(impressions.table),
        weights=impressions.column("weight").to_numpy() if impressions.has("weight") else None,
        **options,
    )


def _truth(labels: Any, count: int) -> Any:
    """Returns labels as float32, by name where there are several."""
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        return {name: _label(name, values, count) for name, values in labels.items()}
    return _label("labels", labels, count)


def _label(name: str, values: Any, count: int) -> np.ndarray:
    label = _column(name, values, count, np.float32).reshape(-1, 1)
    outside = int((~((label >= 0) & (label <= 1))).sum())
    if outside:
        raise DataError(
            f"{outside:,} of {count:,} labels in {name!r} are missing or outside 0..1. Leave these "
            "impressions out, or make them 0 and 1."
        )
    return label


def _column(name: str, values: Any, count: int, dtype: Any = None) -> np.ndarray:
    column = np.asarray(values, dtype)
    if column.ndim == 0 or len(column) != count:
        found = len(column) if column.ndim else "no"
        raise DataError(f"{name} has {found} values, but there are {count:,} impressions.")
    return column
