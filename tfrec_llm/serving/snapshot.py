"""What training was like, kept with a model: what the traffic is compared with."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.vocabulary import NUM_RESERVED, UNKNOWN
from tfrec_llm.errors import DataFileError, NotFittedError

if TYPE_CHECKING:
    import pyarrow as pa

    from tfrec_llm.data.feature_table import Catalogue
    from tfrec_llm.data.vocabulary import Vocabulary
    from tfrec_llm.evaluation.model_scorer import ModelScorer
    from tfrec_llm.recommender import Recommender

_FORMAT = "tfrec_llm.snapshot.1"
# Behaviours before which histories are looked at, and values that tell a distribution.
_SAMPLE, _QUANTILES = 2000, 1000
# Directions in which users' vectors are looked at.
_DIRECTIONS = 8


@dataclass(frozen=True, eq=False)
class TrainingSnapshot:
    """Distributions of what a model was trained on, and of what it makes of that.

    It holds counts and quantiles, and no history of any user.

    Attributes:
        item_counts: int64 `[items]`, how often each item of the vocabulary was chosen.
        unknown_count: How often items were that the vocabulary does not hold.
        lengths: Float, quantiles of the number of behaviours before a behaviour.
        best_scores: Float, quantiles of the score of the first item of a list.
        directions: float32 `[p, emb_dim]`, in which users' vectors vary most; the first one is
            their mean's.
        projections: Float `[p, q]`, quantiles of users' vectors in these directions.

    Example:
        >>> split = tfrec_llm.data.leave_last_out(tfrec_llm.data.ShopSimulator(80, 30).simulate())
        >>> rec = tfrec_llm.Recommender(emb_dim=8, num_layers=1)
        >>> snapshot = TrainingSnapshot.of(rec.fit(split.train, epochs=1, verbose=0))
        >>> int(snapshot.item_counts.sum()) == len(split.train)
        True
    """

    item_counts: np.ndarray
    unknown_count: int
    lengths: np.ndarray
    best_scores: np.ndarray
    directions: np.ndarray
    projections: np.ndarray

    @classmethod
    def of(
        cls,
        scorer: "Recommender | ModelScorer",
        *,
        since: int | None = None,
        filter_seen: bool = True,
        candidates: Any = None,
        exclude: Any = None,
        seed: int = 0,
    ) -> "TrainingSnapshot":
        """Takes a snapshot of what a scorer knows.

        Histories are looked at as a server meets them: before a behaviour, of which a sample is
        drawn.

        Args:
            scorer: A fitted `Recommender`, or a `ModelScorer` with histories.
            since: The first moment that counts, in the unit of `BehaviorLog.times()`; None for
                all. Of a shop with seasons, the newest weeks tell best what is normal.
            filter_seen: Whether lists leave out what the history holds.
            candidates: Raw ids that alone are recommended; None for all.
            exclude: Raw ids that never are.
            seed: Of the sample.

        Raises:
            NotFittedError: If the scorer is not fitted, or knows no history.
        """
        from tfrec_llm.evaluation.model_scorer import model_user_vectors

        histories = scorer.histories
        if scorer.model is None or histories is None:
            raise NotFittedError("A snapshot needs a fitted recommender with its histories.")
        if not len(histories.items):  # of shards, which stay on disk
            counts = scorer.vocabulary.counts
            nothing = [np.zeros(0), np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0))]
            return cls(counts[NUM_RESERVED:], int(counts[UNKNOWN]), *nothing)
        places = np.arange(len(histories.items))
        if since is not None and histories.times is not None:
            places = np.flatnonzero(histories.times >= since)
        items = np.bincount(histories.items[places], minlength=scorer.vocabulary.size)
        rng = np.random.default_rng(seed)
        drawn = rng.choice(places, min(_SAMPLE, len(places)), replace=False)
        sample = histories.before(np.sort(drawn))
        warm = sample.take(sample.lengths > 0)
        vectors = model_user_vectors(scorer.model, warm)
        best = scorer.recommend(
            histories=warm, k=1, filter_seen=filter_seen, candidates=candidates, exclude=exclude
        )
        directions = _directions_of(vectors)
        return cls(
            items[NUM_RESERVED:],
            int(items[UNKNOWN]),
            quantiles(sample.lengths),
            quantiles(best["score"].to_numpy()),
            directions,
            np.stack([quantiles(one) for one in directions @ vectors.T])
            if len(vectors)
            else np.zeros((0, 0)),
        )

    def category_counts(
        self, vocabulary: "Vocabulary", catalogue: "Catalogue"
    ) -> dict[str, dict[str, int]]:
        """Returns how often each value of each categorical column was chosen.

        Args:
            vocabulary: The items of `item_counts`.
            catalogue: What is known of them.
        """
        return counts_by_category(catalogue, vocabulary.ids, self.item_counts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, whole or not at all."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with replace_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, format=np.array(_FORMAT), **values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TrainingSnapshot":
        """Reads what `save` wrote.

        Raises:
            DataFileError: If the file is missing, damaged or holds something else.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                if str(stored["format"]) != _FORMAT:
                    raise ValueError(f"its format is {stored['format']}, not {_FORMAT}")
                values = {name: stored[name] for name in cls.__dataclass_fields__}
        except Exception as error:  # what a damaged archive raises is of many kinds
            raise DataFileError(f"{path} holds no snapshot: {error}") from error
        return cls(**values | {"unknown_count": int(values["unknown_count"])})


def quantiles(values: np.ndarray) -> np.ndarray:
    """Returns up to 1,000 of some values, evenly over their order: they tell the distribution."""
    values = np.sort(np.asarray(values, np.float64))
    if len(values) <= _QUANTILES:
        return values
    places = ((np.arange(_QUANTILES) + 0.5) / _QUANTILES * len(values)).astype(np.int64)
    return values[places]


def counts_by_category(
    catalogue: "Catalogue", ids: "pa.Array", counts: np.ndarray
) -> dict[str, dict[str, int]]:
    """Returns how often each value of each categorical column occurs.

    Args:
        catalogue: What is known of the items.
        ids: Raw ids of items.
        counts: Integer `[items]`, how often each occurs. Items without a value are left out.
    """
    table = catalogue.lookup(ids)
    found: dict[str, dict[str, int]] = {}
    for name, kind in catalogue.types.items():
        if kind != "categorical":
            continue
        sums: dict[str, int] = {}
        for value, count in zip(table[name].to_pylist(), counts.tolist(), strict=True):
            if value is not None and count:
                sums[value] = sums.get(value, 0) + count
        found[name] = sums
    return found


def _directions_of(vectors: np.ndarray) -> np.ndarray:
    """Returns unit vectors: that of the mean, then those in which the vectors vary most."""
    if not len(vectors):
        return np.zeros((0, vectors.shape[1]), np.float32)
    mean = vectors.mean(axis=0)
    _, _, main = np.linalg.svd(vectors - mean, full_matrices=False)
    length: Any = np.linalg.norm(mean)
    first = mean / (length or 1.0)
    return np.concatenate([first[None], main[: _DIRECTIONS - 1]]).astype(np.float32)
