"""Batches of impressions: who was shown what, after which behaviours, and what came of it."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.packing import from_newest, lay_out, next_power, ranges
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import DataError, EmptyLogError

if TYPE_CHECKING:
    from tfrec_llm.data.feature_encoding import FeatureEncoding


class RankingBatches(keras.utils.PyDataset):
    """Impressions, each beside what its user had done before it.

    A row holds the behaviours of one user and the impressions that are judged
    after them. Nothing of a history is laid out that is not older than the
    impression: behaviours at the very time of an impression are none of its
    history.

    With `share_history`, impressions of a user at different times share a
    row: a causal encoder reads the history once, and each impression asks at
    the newest behaviour before it. It then sees the `max_length` newest
    behaviours or at least half as many. Without, a row is what a user looked
    like at one time, and every impression sees exactly its `max_length`
    newest behaviours; that is what probabilities are computed on.

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
        max_targets: Impressions a row at the most.
        share_history: See above; only for causal encoders.
        shuffle: Whether every epoch takes the rows in another order.
        seed: Of that order.

    Raises:
        EmptyLogError: If there are no impressions.
        DataError: If arrays do not fit together, the sequences have no times,
            or a label is NaN.

    Example:
        >>> sequences = tfrec_llm.data.UserSequences(
        ...     np.array([3, 4, 5], np.int32), np.array([0, 3]), times=np.array([10, 20, 30])
        ... )
        >>> batches = RankingBatches(
        ...     sequences, users=[0, 0], times=[20, 40], candidates=[7, 8], labels=[0, 1]
        ... )
        >>> inputs, labels, weights = batches[0]
        >>> inputs["items"].tolist(), inputs["history_lengths"].tolist()
        ([[3, 0, 0, 0, 0, 0, 0, 0], [3, 4, 5, 0, 0, 0, 0, 0]], [[1], [3]])
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
        max_targets: int = 32,
        share_history: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("max_length", max_length),
            ("batch_size", batch_size),
            ("max_targets", max_targets),
        ):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}.")
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
            f"context/{name}": _column(f"context[{name!r}]", values, count)
            for name, values in (context or {}).items()
        }
        if profiles is not None:
            self.features["profiles"] = _column("profiles", profiles, count, np.int32)
        self.max_length = max_length
        self.batch_size = batch_size
        self.share_history = share_history
        self.shuffle = shuffle
        self.seed = seed
        users = _column("users", users, count, np.int64)
        times = _column("times", times, count, np.int64)
        self._known = behaviors_before(sequences, users, times)
        self._lay_rows(users, max_targets)
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> Any:
        """Returns inputs, labels and weights of a batch; the inputs alone without labels.

        The inputs are integer arrays: `items`, `segments`, `positions` and, where the sequences
        have them, `behaviors`, `[rows, length]`; `target_positions`, `history_lengths` and
        `candidates`, `[rows, targets]`, and the features beside them.
        """
        rows = self._rows(index)
        begins, ends = self._begins[rows], self._ends[rows]
        sizes = ends - begins
        length = max(8, int(next_power(sizes.max())))
        place = ranges(np.arange(len(rows)) * length, sizes)
        source = ranges(self._starts[rows] + begins, sizes)
        laid_out = functools.partial(lay_out, (len(rows), length), place)
        inputs = {
            "items": laid_out(self.sequences.items[source]),
            "segments": laid_out(np.int32(1)),
            "positions": laid_out(from_newest(sizes)),
        }
        if self.sequences.behaviors is not None:
            inputs["behaviors"] = laid_out(self.sequences.behaviors[source])

        shape, place, asked = self._targets(rows)
        read = self._known[asked] - begins[place // shape[1]]
        laid_out = functools.partial(lay_out, shape, place)
        inputs |= {
            "target_positions": laid_out(np.maximum(read - 1, 0).astype(np.int32)),
            "history_lengths": laid_out(read.astype(np.int32)),
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
        shape, place, asked = self._targets(self._rows(index))
        return lay_out(shape, place, asked + 1) - 1

    def set_epoch(self, epoch: int) -> None:
        """Orders the rows for an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        rows = np.arange(len(self._begins))
        if self.shuffle:
            rng.shuffle(rows)
        # Rows of like lengths stand together, so that little is padded.
        lengths = next_power(self._ends - self._begins)
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        counts = np.diff(self._bounds_of_rows)[rows]
        batch = (np.cumsum(counts) - 1) // self.batch_size
        starts = np.flatnonzero(np.append(True, batch[1:] != batch[:-1]))
        sizes = np.diff(np.append(starts, len(rows)))
        if self.shuffle:
            order = rng.permutation(len(starts))
            starts, sizes = starts[order], sizes[order]
        self._order = rows[ranges(starts, sizes)]
        self._bounds = np.append(0, np.cumsum(sizes))

    def on_epoch_end(self) -> None:
        """Orders the rows for the next epoch."""
        self.set_epoch(self.epoch + 1)

    def _rows(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return self._order[self._bounds[index] : self._bounds[index + 1]]

    def _targets(self, rows: np.ndarray) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
        """Returns the shape of the targets of rows, their flat places, and which they are."""
        bounds = self._bounds_of_rows
        counts = np.diff(bounds)[rows]
        shape = len(rows), int(next_power(counts.max()))
        place = ranges(np.arange(len(rows)) * shape[1], counts)
        return shape, place, self._impressions[ranges(bounds[rows], counts)]

    def _lay_rows(self, users: np.ndarray, max_targets: int) -> None:
        """Groups the impressions into rows: whose history, from where to where."""
        known = self._known
        if self.share_history:
            step = max(1, self.max_length // 2)
            window = np.maximum(0, -(-(known - self.max_length) // step))
            begin = window * step
        else:
            begin = np.maximum(0, known - self.max_length)
            window = known
        # Who has no history is like all others who have none.
        users = np.where(known > 0, users, -1)
        self._impressions = np.lexsort((known, window, users))
        users, window, begin, known = (
            values[self._impressions] for values in (users, window, begin, known)
        )
        new = np.append(True, (users[1:] != users[:-1]) | (window[1:] != window[:-1]))
        first = np.flatnonzero(new)
        place = np.arange(len(users)) - np.repeat(first, np.diff(np.append(first, len(users))))
        first = np.flatnonzero(new | (place % max_targets == 0))
        self._bounds_of_rows = np.append(first, len(users))
        self._starts = np.where(users[first] < 0, 0, self.sequences.offsets[users[first]])
        self._begins = begin[first]
        self._ends = known[self._bounds_of_rows[1:] - 1]


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
    labels: str | Sequence[str] | None = "label",
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
        labels: Column of the labels, or several for several tasks; None for
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
        truth = {name: impressions.column(name).to_numpy() for name in labels}
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
    label = _column(name, values, count, np.float32)
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
