"""Ranking the whole catalogue for every user, in chunks of users and blocks of items."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import EmptyLogError
from tfrec_llm.evaluation.item_scores import ItemScores, Places, WholeScores
from tfrec_llm.evaluation.report import EvaluatedUsers, Report
from tfrec_llm.metrics import (
    RANKING_METRICS,
    catalogue_coverage,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_bias,
)
from tfrec_llm.metrics.running_ranks import RunningRanks
from tfrec_llm.metrics.running_top_k import RunningTopK

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.evaluation.scorer import Scorer

# Scores held at a time where a scorer gives whole rows: 256 MB of float32, however large the
# catalogue is.
_SCORES_AT_ONCE = 1 << 26

Score: TypeAlias = "Callable[[UserSequences], np.ndarray] | Scorer"


@dataclass(frozen=True)
class Ranking:
    """Where every target stood.

    Attributes:
        ranks: float64 `[targets]`, grouped by user; `inf` for targets that were not ranked.
        offsets: int64 `[users + 1]`, where each user's ranks begin.
        lists: int32 `[users, k]`, the best items of every user, counted from 0 for the first item
            of the vocabulary, -1 where a place is empty; None if no lists were asked for.
    """

    ranks: np.ndarray
    offsets: np.ndarray
    lists: np.ndarray | None = None


@dataclass(frozen=True)
class RankingTask:
    """Users, what they had done, and what they did next; whole catalogue, nothing sampled.

    The published protocols are `filter_seen=True` (F: every item of the user's history leaves
    the ranking, a target that is among them is a miss) and `filter_seen=False` (U). Ties count
    against the target; targets the vocabulary does not hold stay in the denominator as misses.
    A task that is kept serves many evaluations: what does not depend on the scores is made once.

    Args:
        histories: What the users had done, `[users]`.
        targets: Their held-out items, `[users]`, each item once and one or more a user;
            `UNKNOWN` for what is not in the vocabulary.
        vocabulary: The vocabulary of both.
        filter_seen: Whether the items of a user's history are taken out of the ranking.

    Example:
        >>> vocabulary = Vocabulary(["A13", "B4", "C7"])
        >>> task = RankingTask(
        ...     UserSequences.from_histories([["A13"], ["B4"]], vocabulary),
        ...     UserSequences.from_histories([["B4"], ["C7"]], vocabulary),
        ...     vocabulary,
        ... )
        >>> by_index = lambda sequences: np.tile(np.arange(6.0), (len(sequences), 1))
        >>> task.rank(by_index).ranks
        array([2., 1.])
    """

    histories: UserSequences
    targets: UserSequences
    vocabulary: Vocabulary
    filter_seen: bool = True

    @classmethod
    def from_log(
        cls,
        log: "BehaviorLog",
        vocabulary: Vocabulary,
        *,
        histories: UserSequences | None = None,
        filter_seen: bool = True,
    ) -> "RankingTask":
        """Makes the task of predicting a log's behaviours.

        Args:
            log: Held-out behaviours. An item that a user has several times is one target.
            vocabulary: The model's.
            histories: What known users had done; others of the log's users get empty histories.
                Defaults to `log.history`.
            filter_seen: Whether the items of a user's history are taken out of the ranking.

        Raises:
            EmptyLogError: If the log has no rows.
            NullValueError: If a row lacks its user, item or time.
        """
        log.require_complete()
        if not len(log):
            raise EmptyLogError("There is nothing to evaluate: the log has no rows.")
        codes, users = log.user_codes()
        # Distinct raw ids: two unknown items are two misses.
        item_codes, items = log.item_codes()
        pairs = np.unique(codes * len(items) + item_codes)
        known = vocabulary.encode(items, on_unknown="unknown")
        counts = np.bincount(pairs // len(items), minlength=len(users))
        targets = UserSequences(known[pairs % len(items)], _offsets(counts), user_ids=users)
        if histories is None and log.history is not None:
            histories = UserSequences.from_log(log.history, vocabulary)
        if histories is None:
            none = np.zeros(0, np.int32)
            histories = UserSequences(none, np.zeros(len(users) + 1, np.int64), user_ids=users)
        return cls(histories.select(users, on_unknown="empty"), targets, vocabulary, filter_seen)

    def __post_init__(self) -> None:
        if len(self.histories) != len(self.targets) or (self.targets.lengths < 1).any():
            raise ValueError(
                f"{len(self.histories)} histories need as many users with a target or more; "
                f"there are {np.count_nonzero(self.targets.lengths)}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> "RankingTask":
        """Returns the task of the users at `rows`, for instance a sample for quick looks."""
        histories, targets = self.histories.take(rows), self.targets.take(rows)
        return RankingTask(histories, targets, self.vocabulary, self.filter_seen)

    def rank(self, score: Score, *, list_length: int = 0, chunk_size: int = 512) -> Ranking:
        """Ranks the catalogue for every user.

        Users of similar history length are scored together, which saves a model padding.

        Args:
            score: A `Scorer`, or what gives float `[n, vocabulary.size]` scores of n sequences;
                what it gives is read and not changed.
            list_length: Length of the lists of best items to keep; 0 keeps none and is faster.
            chunk_size: Users scored at a time, at most; fewer when whole rows of scores of so
                large a catalogue would take more than 256 MB.
        """
        ranks = np.empty(len(self.targets.items))
        lists = None
        if list_length:
            list_length = min(list_length, len(self.vocabulary))
            lists = np.empty((len(self), list_length), np.int32)
        for users in self._chunks(chunk_size, score):
            scores = scores_in_blocks(score, self.histories.take(users), self.vocabulary)
            places = self._places.take(users).items
            best = None if lists is None else RunningTopK(len(users), list_length)
            ranks[places] = self._rank_chunk(scores, users, places, best)
            if lists is not None and best is not None:
                lists[users] = best.columns
        return Ranking(ranks, self.targets.offsets, lists)

    def _rank_chunk(
        self, scores: ItemScores, users: np.ndarray, places: np.ndarray, best: RunningTopK | None
    ) -> np.ndarray:
        """Returns the ranks of the targets at `places`, and adds the best items to `best`."""
        targets = self.targets.items[places].astype(np.int64) - NUM_RESERVED
        lengths = self.targets.lengths[users]
        rows = np.repeat(np.arange(len(users)), lengths)
        single = len(places) == len(users)
        seen = self._seen_places(users)
        removed = None if seen is None or best is None else Places(*seen)
        own = scores.at(rows, np.maximum(targets, 0))
        # Products of other shapes may round otherwise: then a second count, with the targets'
        # scores as the blocks have them.
        for _ in range(2):
            ranks = RunningRanks(own, targets, rows=None if single else rows, removed=seen)
            for first, block in scores.blocks():
                ranks.add(first, block)
                if best is not None:
                    gone = [] if removed is None else [removed.within(first, block)]
                    best.add(first, block, removed=gone)
            if ranks.exact():
                break
            own, best = ranks.found, None
        return ranks.ranks()

    def evaluate(
        self,
        score: Score,
        *,
        k: int | Sequence[int] = (5, 10),
        metrics: Sequence[str] | None = None,
        beyond_accuracy: bool = False,
        item_features: np.ndarray | None = None,
        chunk_size: int = 512,
        confidence: float | None = 0.95,
        seed: int = 0,
    ) -> Report:
        """Ranks the catalogue for every user and reports the metrics.

        Args:
            score: As in `rank`.
            k: Lengths of the list.
            metrics: Names from `RANKING_METRICS`; None for all of them.
            beyond_accuracy: Whether to report what the lists are like, too: coverage, gini,
                popularity_bias and novelty. This sorts out the best items of every user, which
                takes several times as long as the ranks.
            item_features: What tells items apart, for the diversity of the lists: `[items, dim]`
                vectors or `[items]` category codes, in the order of the vocabulary's ids. Given,
                it is reported, with the other properties of lists.
            chunk_size: As in `rank`.
            confidence: Of the bootstrap intervals; None leaves them out and is faster.
            seed: Of the bootstrap.

        Raises:
            ValueError: If a metric has no such name or `k` is below 1.
        """
        lengths = sorted({k} if isinstance(k, int) else set(k))
        names = list(RANKING_METRICS) if metrics is None else list(metrics)
        unknown = [name for name in names if name not in RANKING_METRICS]
        if unknown or not names or not lengths or lengths[0] < 1:
            raise ValueError(
                f"metrics must be among {', '.join(RANKING_METRICS)} and k be 1 or more; "
                f"got {names} and {lengths}."
            )
        with_lists = beyond_accuracy or item_features is not None
        ranking = self.rank(
            score, list_length=lengths[-1] if with_lists else 0, chunk_size=chunk_size
        )
        offsets = None if len(ranking.ranks) == len(self) else ranking.offsets
        per_user = {
            f"{name}@{length}": RANKING_METRICS[name](ranking.ranks, length, offsets=offsets)
            for name in names
            for length in lengths
        }
        overall: dict[str, float] = {}
        if ranking.lists is not None:
            for length in lengths:
                lists = ranking.lists[:, :length]
                per_user |= self._list_properties(lists, length, item_features)
                shown = exposure(lists, len(self.vocabulary))
                overall[f"coverage@{length}"] = catalogue_coverage(shown)
                overall[f"gini@{length}"] = gini(shown)
        return Report.from_users(
            per_user, self._evaluated(), overall=overall, confidence=confidence, seed=seed
        )

    def _list_properties(
        self, lists: np.ndarray, k: int, item_features: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        counts = self.vocabulary.counts[NUM_RESERVED:]
        found = {
            f"popularity_bias@{k}": popularity_bias(lists, counts),
            f"novelty@{k}": novelty(lists, counts),
        }
        if item_features is not None:
            blocks = np.array_split(lists, max(1, len(lists) // 1024))
            differences = [intra_list_diversity(block, item_features) for block in blocks]
            found[f"diversity@{k}"] = np.concatenate(differences)
        return found

    def _evaluated(self) -> EvaluatedUsers:
        unknown = int(np.count_nonzero(self.targets.items < NUM_RESERVED))
        total = len(self.targets.items)
        return EvaluatedUsers(len(self), len(self.vocabulary), total, unknown, self.filter_seen)

    def _chunks(self, chunk_size: int, score: Score) -> Iterator[np.ndarray]:
        rows = users_at_once(chunk_size, self.vocabulary, score)
        order = np.argsort(self.histories.lengths, kind="stable")
        for start in range(0, len(order), rows):
            yield order[start : start + rows]

    def _seen_places(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        if not self.filter_seen:
            return None
        seen = self._seen.take(users)
        return np.repeat(np.arange(len(users)), seen.lengths), seen.items

    @cached_property
    def _seen(self) -> UserSequences:
        """Every user's distinct items, counted from the first item of the vocabulary."""
        rows = np.repeat(np.arange(len(self)), self.histories.lengths)
        items = self.histories.items.astype(np.int64) - NUM_RESERVED
        size = max(len(self.vocabulary), 1)
        pairs = np.unique((rows * size + items)[items >= 0])
        counts = np.bincount(pairs // size, minlength=len(self))
        return UserSequences(pairs % size, _offsets(counts))

    @cached_property
    def _places(self) -> UserSequences:
        """Where every user's targets stand in the flat array of targets."""
        return UserSequences(np.arange(len(self.targets.items)), self.targets.offsets)


def scores_in_blocks(score: Score, sequences: UserSequences, vocabulary: Vocabulary) -> ItemScores:
    """Returns the scores of the sequences, in blocks, from a `Scorer` or a function."""
    if hasattr(score, "item_scores"):
        return cast("Scorer", score).item_scores(sequences)
    # Row after row in memory, whatever comes back: everything that follows reads rows.
    scores = np.asarray(score(sequences), np.float32, order="C")
    if scores.shape != (len(sequences), vocabulary.size):
        raise ValueError(
            f"The scores of {len(sequences)} users over {vocabulary.size} indexes must have "
            f"the shape {(len(sequences), vocabulary.size)}, not {scores.shape}."
        )
    return WholeScores(scores[:, NUM_RESERVED:])


def users_at_once(wanted: int, vocabulary: Vocabulary, score: Score) -> int:
    """Returns how many users to score together: `wanted`, or what 256 MB of whole rows hold."""
    if wanted < 1:
        raise ValueError(f"chunk_size and batch_size must be 1 or more, not {wanted}.")
    if getattr(score, "streams", False):
        return wanted
    return min(wanted, max(1, _SCORES_AT_ONCE // vocabulary.size))


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
