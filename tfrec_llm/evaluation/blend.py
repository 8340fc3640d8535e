"""Several scorers as one, weighted by what validation says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfrec_llm.data.sequences import UserSequences, padded_rows
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.errors import NotFittedError
from tfrec_llm.evaluation.protocol import RankingTask, users_at_once
from tfrec_llm.evaluation.recommending import item_places
from tfrec_llm.evaluation.scorer import Scorer
from tfrec_llm.metrics.ranking import RANKING_METRICS
from tfrec_llm.metrics.top_k import top_k

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog

_SHORTLIST = 200
# How often users come back changes from one behaviour to the next: a smaller gain may be that.
_CLEAR_GAIN = 1.1
# From 1 outwards, so that of equally good ones the mildest is taken.
_REPEAT_WEIGHTS = sorted(
    (0.0, *(2.0**power for power in range(-10, 11))), key=lambda weight: abs(np.log2(weight + 1e-9))
)


class Blend(Scorer):
    """Mixes what several scorers hold likely: `sum of w_s * p_s(item | history)`.

    Every scorer's scores become shares that add up to one over the catalogue
    (`Scorer.shares`): a softmax for models, counts over their sum for floors.
    Models of several seeds, models of several objectives and floors blend
    alike; what a Transformer and counting know differs, so their blend mostly
    beats both.

    How often users come back to an item differs between shops, and models of
    behaviours easily hold what was just seen too likely. So the mixed share of
    every item of a user's history is multiplied by `repeat_weight`.

    Args:
        scorers: By name; all of one vocabulary.
        weights: Weight of each name; None leaves them to `fit`.
        repeat_weight: Weight of items that the user's history holds, 0 or
            more; 1 leaves them as they are. None leaves it to `fit`, which
            chooses it where such items are ranked, `filter_seen=False`.

    Attributes:
        weights: Weight of each name, adding up to one.
        repeat_weight: As given or chosen; 1 before.

    Raises:
        ValueError: If there are no scorers, their vocabularies differ, or
            weights are negative, all zero or of other names.

    Example:
        >>> split = tfrec_llm.data.leave_last_out(tfrec_llm.data.ShopSimulator(80, 30).simulate())
        >>> vocabulary = tfrec_llm.data.Vocabulary.fit(split.train.item)
        >>> floors = {
        ...     "rules": tfrec_llm.baselines.SequentialRules().fit(split.train),
        ...     "popularity": tfrec_llm.baselines.Popularity().fit(split.train),
        ... }
        >>> blend = Blend(floors).fit(split.valid)
        >>> round(sum(blend.weights.values()), 6)
        1.0
        >>> report = blend.evaluate(split.test, k=10)

    Reference:
        Ensemble selection from libraries of models,
        https://doi.org/10.1145/1015330.1015432
    """

    def __init__(
        self,
        scorers: Mapping[str, Scorer],
        *,
        weights: Mapping[str, float] | None = None,
        repeat_weight: float | None = None,
    ):
        if not scorers:
            raise ValueError("A blend needs a scorer or more.")
        self.scorers = dict(scorers)
        first_name, first = next(iter(self.scorers.items()))
        self.vocabulary = first.vocabulary
        self.histories = first.histories
        self.catalogue = first.catalogue
        for name, scorer in self.scorers.items():
            if not scorer.vocabulary.ids.equals(self.vocabulary.ids):
                raise ValueError(
                    f"{name!r} and {first_name!r} rank different items: fit both with one "
                    "vocabulary, such as SequentialRules().fit(log, vocabulary=rec.vocabulary)."
                )
        self.weights: dict[str, float] | None = None
        if weights is not None:
            self.weights = self._checked(weights)
        if repeat_weight is not None and not 0.0 <= repeat_weight < np.inf:
            raise ValueError(f"repeat_weight must be a number of 0 or more, got {repeat_weight}.")
        self.repeat_weight = 1.0 if repeat_weight is None else float(repeat_weight)
        self._chooses_repeats = repeat_weight is None

    def fit(
        self,
        validation: "BehaviorLog",
        *,
        metric: str = "ndcg@10",
        filter_seen: bool = True,
        rounds: int = 20,
        chunk_size: int = 512,
    ) -> "Blend":
        """Chooses the weights that rank held-out behaviours best.

        Greedy selection with replacement: in every round the scorer joins that
        makes the mixture best, and the best mixture of all rounds is kept.
        Where the weight of repeats is chosen, too, both are, in turns; it stays
        1 unless another makes the metric better by a tenth, for how often users
        come back changes from one behaviour to the next. Only each user's 200
        best items by every scorer (where repeats are ranked, the 100 best of the
        history and the 100 best others) and the targets take part in the
        search; `evaluate` ranks the whole catalogue.

        Args:
            validation: Held-out behaviours that no scorer was fitted on.
            metric: What is made best, `@` a length.
            filter_seen: Whether the items of a user's history leave the
                ranking.
            rounds: Number of rounds; weights are multiples of one over the
                number of rounds that were taken.
            chunk_size: Users scored at a time.

        Returns:
            Itself.
        """
        name, _, length = metric.partition("@")
        if name not in RANKING_METRICS or rounds < 1:
            raise ValueError(
                f"metric must be one of {', '.join(RANKING_METRICS)} and rounds 1 or more; got "
                f"{metric!r} and {rounds}."
            )
        histories = self.histories
        if validation.history is not None:
            histories = self.sequences(validation.history)
        task = RankingTask.from_log(
            validation, self.vocabulary, histories=histories, filter_seen=filter_seen
        )
        shortlists = self._shortlists(task, chunk_size)

        def value(weights: np.ndarray, repeat_weight: float) -> float:
            ranks = np.concatenate([one.ranks(weights, repeat_weight) for one in shortlists])
            values = RANKING_METRICS[name](ranks, int(length or 10), offsets=task.targets.offsets)
            return float(np.mean(values))

        def best_mixture(repeat_weight: float) -> tuple[float, np.ndarray, float]:
            counts = np.zeros(len(self.scorers))
            found = []
            for _ in range(rounds):
                tries = counts + np.eye(len(counts))
                values = [value(tried / tried.sum(), repeat_weight) for tried in tries]
                counts = tries[int(np.argmax(values))]
                found.append((max(values), counts / counts.sum(), repeat_weight))
            return max(found, key=lambda one: one[0])

        best = best_mixture(1.0 if self._chooses_repeats else self.repeat_weight)
        if self._chooses_repeats and not filter_seen:
            mixture = np.full(len(self.scorers), 1 / len(self.scorers))
            needed = _CLEAR_GAIN * best[0]
            for _ in range(2):
                values = [value(mixture, repeat_weight) for repeat_weight in _REPEAT_WEIGHTS]
                weighed = best_mixture(_REPEAT_WEIGHTS[int(np.argmax(values))])
                mixture = weighed[1]
                if weighed[0] > needed:
                    best, needed = weighed, weighed[0]
        _, mixture, self.repeat_weight = best
        self.weights = dict(zip(self.scorers, mixture.tolist(), strict=True))
        return self

    def score(self, sequences: UserSequences) -> np.ndarray:
        if self.weights is None:
            raise NotFittedError("This Blend has no weights: call fit() or pass weights=.")
        mixed = np.zeros((len(sequences), self.vocabulary.size), np.float32)
        for name, weight in self.weights.items():
            if weight:
                mixed += np.float32(weight) * self.scorers[name].shares(sequences)
        if self.repeat_weight != 1.0:
            rows, seen = item_places(sequences)
            mixed[rows, seen + NUM_RESERVED] *= np.float32(self.repeat_weight)
        mixed[:, :NUM_RESERVED] = -np.inf
        return mixed

    def vectors_of(self, items: np.ndarray) -> np.ndarray | None:
        """Returns the vectors of the first scorer that has any."""
        found = (scorer.vectors_of(items) for scorer in self.scorers.values())
        return next((vectors for vectors in found if vectors is not None), None)

    def _shortlists(self, task: RankingTask, chunk_size: int) -> list["_Shortlist"]:
        """Returns the best items of every target's user by chunk of users."""
        found = []
        at_once = users_at_once(chunk_size, self.vocabulary, self)
        for start in range(0, len(task), at_once):
            users = np.arange(start, min(start + at_once, len(task)))
            histories, targets = task.histories.take(users), task.targets.take(users)
            shares = np.stack([scorer.shares(histories) for scorer in self.scorers.values()])
            rows = np.repeat(np.arange(len(users)), targets.lengths)
            items = np.asarray(targets.items, np.int64)
            seen = np.zeros(shares.shape[1:], bool)
            seen_rows, seen_items = item_places(histories)
            seen[seen_rows, seen_items + NUM_RESERVED] = True
            # What stands on the list is neither reserved, nor removed, nor a target.
            shares[:, :, :NUM_RESERVED] = -1.0
            if task.filter_seen:
                shares[:, seen] = -1.0
            own, own_seen = shares[:, rows, items], seen[rows, items]
            shares[:, rows, items] = -1.0
            if task.filter_seen:
                best = [top_k(of_one, min(_SHORTLIST, shares.shape[2])) for of_one in shares]
            else:
                # Repeats may come to weigh nothing or all: half of the list are repeats.
                size = min(_SHORTLIST // 2, shares.shape[2])
                best = [top_k(np.where(seen, -1.0, of_one), size) for of_one in shares]
                places_seen, counts = np.nonzero(seen)[1], np.count_nonzero(seen, axis=1)
                repeats = padded_rows(places_seen, counts, fill=0)
                for of_one in shares:
                    order = top_k(np.take_along_axis(of_one, repeats, axis=1), size)
                    best.append(np.take_along_axis(repeats, order, axis=1))
            places = np.sort(np.maximum(np.concatenate(best, axis=1), 0), axis=1)
            kept = np.take_along_axis(shares, places[None], axis=2)
            # An item that several scorers list counts once.
            repeated = places[:, 1:] == places[:, :-1]
            kept[:, :, 1:][:, repeated] = -1.0
            kept_seen = np.take_along_axis(seen, places, axis=1)
            found.append(_Shortlist(kept[:, rows], kept_seen[rows], own, own_seen))
        return found

    def _checked(self, weights: Mapping[str, float]) -> dict[str, float]:
        total = float(sum(weights.values()))
        if set(weights) != set(self.scorers) or min(weights.values()) < 0.0 or not total > 0.0:
            raise ValueError(
                f"weights must give each of {sorted(self.scorers)} a number of 0 or more, not all "
                f"0; got {dict(weights)}."
            )
        return {name: weights[name] / total for name in self.scorers}


@dataclass(frozen=True)
class _Shortlist:
    """What decides the ranks of some targets.

    Attributes:
        rivals: Shares of other items, `[scorers, targets, kept]`; negative where there is none.
        rivals_seen: Which of them the user's history holds, `[targets, kept]`.
        own: Shares of the targets themselves, `[scorers, targets]`.
        own_seen: Which of the targets the user's history holds, `[targets]`.
    """

    rivals: np.ndarray
    rivals_seen: np.ndarray
    own: np.ndarray
    own_seen: np.ndarray

    def ranks(self, weights: np.ndarray, repeat_weight: float) -> np.ndarray:
        """Returns the targets' ranks; ties count against them."""
        weights = weights.astype(np.float32)
        mixed = np.tensordot(weights, self.rivals, axes=1)
        target = weights @ self.own
        if repeat_weight != 1.0:
            mixed[self.rivals_seen & (mixed > 0.0)] *= np.float32(repeat_weight)
            target[self.own_seen & (target > 0.0)] *= np.float32(repeat_weight)
        ranks = 1.0 + np.count_nonzero(mixed >= target[:, None], axis=1)
        return np.where(target < 0.0, np.inf, ranks)
