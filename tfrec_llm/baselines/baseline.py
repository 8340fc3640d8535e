"""What the floors share."""

import abc
import inspect
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse

from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.packing import ranges
from tfrec_llm.data.saved_folder import load_parts, save_parts
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import DataError, EmptyLogError, NotFittedError, SavedModelError
from tfrec_llm.evaluation.scorer import Scorer

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog

_FORMAT = "tfrec_llm.baseline.1"
_MANIFEST = "baseline.json"


class Baseline(Scorer):
    """Template of floors: `fit` counts, `score` reads the counts.

    A subclass writes `count` and `rate`. Of items that it rates alike the more
    popular one stands first, and those it has nothing to say of follow by
    popularity.

    Raises:
        NotFittedError: If it is asked for scores before `fit`.
    """

    _popularity: np.ndarray | None = None

    def fit(self, log: "BehaviorLog", *, vocabulary: Vocabulary | None = None) -> Self:
        """Counts a log.

        Args:
            log: Behaviours to learn from, such as `split.train`.
            vocabulary: The items to rank; None takes those of the log.

        Returns:
            Itself.

        Raises:
            EmptyLogError: If the log has no rows.
            NullValueError: If a row lacks its user, item or time.
        """
        log.require_complete()
        if not len(log):
            raise EmptyLogError("The log has no rows, so there is nothing to count.")
        self.vocabulary = Vocabulary.fit(log.item) if vocabulary is None else vocabulary
        self.catalogue = log.catalogue
        self._learn(UserSequences.from_log(log, self.vocabulary))
        return self

    def _learn(self, histories: UserSequences) -> None:
        self.histories = histories
        counts = self._occurrences(histories)
        self._popularity = counts
        # From 1 for the most popular item down to 0, no two alike.
        order = np.argsort(-counts, kind="stable")
        self._fill = np.empty(len(counts), np.float32)
        self._fill[order] = np.linspace(1.0, 0.0, len(counts), dtype=np.float32)
        self.count(histories)

    def score(self, sequences: UserSequences) -> np.ndarray:
        if self._popularity is None:
            raise NotFittedError(f"This {type(self).__name__} is not fitted: call fit().")
        scores = np.array(self.rate(sequences), np.float32, order="C")
        # Rated items stand above 0, of equal ones the more popular first; the others follow
        # between -2 and -1, by popularity.
        silent = ~(scores > 0)
        scores *= 1.0 + 1e-5 * self._fill
        np.copyto(scores, self._fill - 2.0, where=silent)
        scores[:, :NUM_RESERVED] = -np.inf
        return scores

    def shares(self, sequences: UserSequences) -> np.ndarray:
        """Returns rated items' scores over their sum; the others stand next to 0."""
        scores = self.score(sequences)
        rated = np.maximum(scores, 0.0)
        # Silent items stand between -2 and -1.
        silent = np.where(rated > 0.0, 0.0, np.maximum(scores + 2.0, 0.0))
        shares = rated + 1e-6 * silent * np.where(rated.any(axis=1, keepdims=True), rated, 1.0).max(
            axis=1, keepdims=True
        )
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)

    @abc.abstractmethod
    def count(self, sequences: UserSequences) -> None:
        """Learns from histories, oldest behaviour first."""

    @abc.abstractmethod
    def rate(self, sequences: UserSequences) -> Any:
        """Returns `[n, vocabulary.size]`, above 0 where there is something to say."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves what `load` needs into a folder, whole or not at all.

        Args:
            path: The folder; a saved floor that is there is replaced when the new one is complete.

        Raises:
            NotFittedError: If it is not fitted.
            SavedModelError: If it cannot be written, or `path` holds something else. What was
                there stays.
        """
        if self._popularity is None or self.histories is None:
            raise NotFittedError(f"This {type(self).__name__} is not fitted: call fit().")
        path = Path(path)
        if path.exists() and not (path / _MANIFEST).exists() and not _is_empty_folder(path):
            raise SavedModelError(f"{path} holds something else, which saving would replace.")
        names = list(inspect.signature(type(self)).parameters)
        manifest = {
            "format": _FORMAT,
            "class": type(self).__name__,
            "config": {name: getattr(self, name) for name in names},
            "catalogue": self.catalogue is not None,
        }
        try:
            with replace_folder(path) as folder:
                save_parts(self, folder)
                (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        except OSError as error:
            raise SavedModelError(
                f"{type(self).__name__} could not be saved to {path}: {error}. What was there "
                "before is unchanged."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Loads what `save` wrote; scores are equal.

        The histories are stored and counted again, which takes as long as `fit`. `Baseline.load`
        loads a floor of any kind.

        Args:
            path: The folder.

        Raises:
            SavedModelError: If a file is missing or damaged, or it is a floor of another kind.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / _MANIFEST).read_text())
            kinds = {kind.__name__: kind for kind in (cls, *cls.__subclasses__())}
            if manifest["format"] != _FORMAT or manifest["class"] not in kinds:
                raise SavedModelError(
                    f"{path} holds a {manifest['class']} ({manifest['format']}), not a "
                    f"{cls.__name__} ({_FORMAT})."
                )
            floor = kinds[manifest["class"]](**manifest["config"])
            known = load_parts(path, catalogue=manifest["catalogue"])
            floor.vocabulary, floor.catalogue = known.vocabulary, known.catalogue
            assert known.histories is not None
            floor._learn(known.histories)
        except SavedModelError:
            raise
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise SavedModelError(f"{path} holds no whole saved floor: {error}") from error
        return floor

    def _occurrences(self, sequences: UserSequences) -> np.ndarray:
        """float64 `[vocabulary.size]`: how often each item occurs; 0 for reserved indexes."""
        counts = np.bincount(sequences.items, minlength=self.vocabulary.size).astype(np.float64)
        counts[:NUM_RESERVED] = 0.0
        return counts


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def pair_counts(sequences: UserSequences, size: int, window: int) -> sparse.csr_array:
    """Counts ordered pairs of items in the same history by their distance.

    Args:
        sequences: Histories, oldest behaviour first.
        size: Number of indexes.
        window: Largest distance d that counts.

    Returns:
        float64 `[size, size]`: at (a, b) the sum of 1 / d over all pairs with
        a standing d places before b. Reserved indexes count nothing.
    """
    items = np.asarray(sequences.items, np.int64)
    lengths = sequences.lengths
    place = ranges(0 * lengths, lengths)
    counts = sparse.csr_array((size, size), dtype=np.float64)
    for distance in range(1, window + 1):
        later = np.flatnonzero(place >= distance)
        if not len(later):
            break
        before, after = items[later - distance], items[later]
        known = (before >= NUM_RESERVED) & (after >= NUM_RESERVED)
        weights = np.full(np.count_nonzero(known), 1.0 / distance)
        counts = (
            counts
            + sparse.coo_array((weights, (before[known], after[known])), shape=(size, size)).tocsr()
        )
    return counts
