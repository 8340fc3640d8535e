"""What ranks a catalogue for users: the common face of models and floors."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import NotFittedError
from tfrec_llm.evaluation.item_scores import ItemScores
from tfrec_llm.evaluation.protocol import RankingTask, scores_in_blocks, users_at_once
from tfrec_llm.evaluation.recommending import ItemFilter, KnownOrNew, best_items, reachable
from tfrec_llm.evaluation.report import Report

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.compute as pc

    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.data.feature_table import Catalogue
    from tfrec_llm.reranking.reranker import Reranker


class Scorer(abc.ABC):
    """Scores every item of a catalogue for users, from what they did.

    A subclass sets the attributes and gives `score`; recommending and evaluating follow, the
    same for all, so that their numbers compare. One whose scores come in blocks of items gives
    `item_scores`, too, and sets `streams`: large catalogues then take little memory.

    Attributes:
        vocabulary: The items that are ranked, and their indexes.
        histories: What known users did; None where no user is known.
        catalogue: What is known of the items; None where nothing is.
        streams: Whether `item_scores` never holds the scores of the whole catalogue.

    Example:
        >>> class Newest(Scorer):
        ...     def __init__(self, vocabulary):
        ...         self.vocabulary = vocabulary
        ...
        ...     def score(self, sequences):
        ...         return np.tile(np.arange(self.vocabulary.size), (len(sequences), 1))
        >>> newest = Newest(Vocabulary(["A13", "B4", "C7"]))
        >>> newest.recommend(histories=[["C7"]], k=1)["item"].to_list()
        ['B4']
    """

    vocabulary: Vocabulary
    histories: UserSequences | None = None
    catalogue: "Catalogue | None" = None
    streams = False

    @abc.abstractmethod
    def score(self, sequences: UserSequences) -> np.ndarray:
        """Scores the whole catalogue for every sequence.

        Args:
            sequences: n histories, oldest behaviour first, of any length; empty ones too.

        Returns:
            float32 `[n, vocabulary.size]`, higher is better. What the reserved indexes hold is
            `-inf`. The caller only reads it.
        """

    def item_scores(self, sequences: UserSequences) -> ItemScores:
        """Scores the catalogue for every sequence in blocks of items: the scores of `score`.

        Args:
            sequences: As in `score`.
        """
        return scores_in_blocks(self.score, sequences, self.vocabulary)

    def shares(self, sequences: UserSequences) -> np.ndarray:
        """Returns the scores as shares of one: what a blend of several scorers adds up.

        Args:
            sequences: As in `score`.

        Returns:
            float32 `[n, vocabulary.size]`, 0 or more, each row adding up to one; the softmax of
            the scores unless a subclass knows better.
        """
        scores = np.array(self.score(sequences), np.float32, order="C")
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    def vectors_of(self, items: np.ndarray) -> np.ndarray | None:
        """Returns vectors whose cosines say how alike items are.

        Args:
            items: int `[m]`, counted from 0 for the first item of the vocabulary.

        Returns:
            float32 `[m, width]`; None where the scorer has none, as counting has not.
        """
        return None

    def sequences(self, log: "BehaviorLog") -> UserSequences:
        """Returns the histories of a log's users as `score` takes them.

        Items that are not in the vocabulary become `UNKNOWN`, and kinds of behaviour are
        numbered as in `histories`.
        """
        kinds = () if self.histories is None else self.histories.behavior_vocabulary
        return UserSequences.from_log(log, self.vocabulary, behaviors=kinds or None)

    def recommend(
        self,
        users: Any = None,
        *,
        histories: UserSequences | Sequence[Sequence[Any]] | None = None,
        k: int = 10,
        filter_seen: bool = True,
        candidates: Any = None,
        exclude: Any = None,
        where: "pc.Expression | None" = None,
        reranker: "Reranker | None" = None,
        on_unknown: Literal["raise", "warn", "ignore"] = "raise",
        batch_size: int = 512,
    ) -> "pd.DataFrame":
        """Returns the best items for known users, or for new ones given by what they did.

        Args:
            users: Raw ids of known users; None for all of them, or where `histories` are given.
            histories: A list of raw item ids, oldest first, of each new user; may be empty.
            k: Items a user; what there is where fewer are left.
            filter_seen: Whether to leave out what the user's history holds.
            candidates: Raw ids to choose from: one list for all users, or a list of lists, one a
                user. None for the whole catalogue.
            exclude: Raw ids never to recommend, in the same forms. Ids the vocabulary does not
                hold do no harm.
            where: Condition on columns of the catalogue that items must satisfy, such as
                `pc.field("price") < 50` with `pyarrow.compute` as `pc`. Items that are not in
                the catalogue, or lack the value, do not.
            reranker: Ranks the best items of this scorer anew; `filter_seen` and the like say
                which these are.
            on_unknown: Users and items that are not known are an error ("raise"), or are left out
                ("ignore"), with a warning ("warn").
            batch_size: Users scored at a time.

        Returns:
            Columns user, rank (from 1), item, score; a user's rows stand together, best first.
            For `histories` the user is the number of the history, from 0. With a reranker the
            score is what it ranks by.

        Raises:
            UnknownUserError: If a user is unknown and `on_unknown` is "raise".
            UnknownItemError: If an item of a history or a candidate is.
            NotFittedError: If `users` are wanted where no user is known.
            MissingColumnError: If `where` names a column that the catalogue lacks.
            DataError: If there is no catalogue for `where`, or it is no condition; and what
                `Reranker` needs and does not find.
            ValueError: If both users and histories are given, or `k` is below 1.
        """
        rows_at_once = users_at_once(batch_size, self.vocabulary, self)
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}.")
        if on_unknown not in ("raise", "warn", "ignore"):
            raise ValueError(f'on_unknown must be "raise", "warn" or "ignore", not {on_unknown!r}.')
        if histories is None:
            if self.histories is None:
                raise NotFittedError("No users are known: fit first, or give histories.")
            asked = KnownOrNew.known(self.histories, users, on_unknown=on_unknown)
        elif users is not None:
            raise ValueError("Give users or histories, not both.")
        else:
            asked = KnownOrNew.new(histories, self.vocabulary, on_unknown=on_unknown)
        allowed = ItemFilter.of(candidates, asked, self.vocabulary, on_unknown=on_unknown)
        barred = ItemFilter.of(exclude, asked, self.vocabulary, on_unknown="ignore")
        if where is not None:
            allowed = ItemFilter.where(where, self.catalogue, self.vocabulary).joined_to(allowed)
        second = None
        if reranker is not None:
            second = reranker.bound_to(self, reachable(allowed, barred, self.vocabulary))
        wanted = k if reranker is None else max(k, reranker.num_candidates)
        chunks = []
        for rows in asked.batches(rows_at_once):
            sequences = asked.sequences.take(rows)
            lists = best_items(
                self.item_scores, sequences, rows, wanted, filter_seen, allowed, barred
            )
            if second is not None:
                names = asked.names.take(pa.array(rows)) if asked.named else None
                lists = second.rerank(lists, k, sequences=sequences, names=names)
            users, places = np.nonzero(lists.items >= 0)
            found = lists.items[users, places], lists.scores[users, places]
            chunks.append((rows[users], places + 1, *found))
        user_rows, ranks, items, scores = (
            np.concatenate(part) for part in zip(*chunks, strict=True)
        )
        return pa.table(
            {
                "user": asked.names.take(pa.array(user_rows)),
                "rank": ranks,
                "item": self.vocabulary.ids.take(pa.array(items)),
                "score": scores,
            }
        ).to_pandas()

    def evaluate(
        self,
        log: "BehaviorLog",
        *,
        k: int | Sequence[int] = (5, 10),
        filter_seen: bool = True,
        metrics: Sequence[str] | None = None,
        beyond_accuracy: bool = False,
        diversity_by: "str | np.ndarray | None" = None,
        chunk_size: int = 512,
        confidence: float | None = 0.95,
        seed: int = 0,
    ) -> Report:
        """Ranks the whole catalogue for the users of held-out behaviours.

        The history of a user is `log.history`, which the splits set; without it what this
        scorer knows of the user. Users without any are scored by an empty history.

        Args:
            log: Held-out behaviours, the targets.
            k: Lengths of the list.
            filter_seen: Whether the items of a user's history leave the ranking.
            metrics: Some of hr, ndcg, mrr, recall, precision, map; None for all.
            beyond_accuracy: Whether to report coverage, gini, popularity_bias and novelty, too.
            diversity_by: What tells items apart, to report the lists' diversity: the name of a
                column of the catalogue, or float vectors `[items, dim]` or integer categories
                `[items]` in the order of the vocabulary's ids. Implies `beyond_accuracy`.
            chunk_size: Users scored at a time, at most.
            confidence: Of the bootstrap intervals; None for none.
            seed: Of the bootstrap.

        Returns:
            The report: `report["ndcg@10"]`, `print(report)`, `report.to_pandas()`.

        Raises:
            EmptyLogError: If the log has no rows.
            NullValueError: If a row lacks its user, item or time.
        """
        histories = self.histories if log.history is None else self.sequences(log.history)
        task = RankingTask.from_log(
            log, self.vocabulary, histories=histories, filter_seen=filter_seen
        )
        if isinstance(diversity_by, str):
            diversity_by = self._categories(diversity_by)
        return task.evaluate(
            self,
            k=k,
            metrics=metrics,
            beyond_accuracy=beyond_accuracy,
            item_features=diversity_by,
            chunk_size=chunk_size,
            confidence=confidence,
            seed=seed,
        )

    def _categories(self, column: str) -> np.ndarray:
        """Returns int64 `[items]`: the number of every item's value in a catalogue column."""
        if self.catalogue is None:
            raise ValueError(
                f"diversity_by={column!r} names a column of the catalogue, but there is no "
                "catalogue. Give it to the log that is fitted, or pass an array."
            )
        values = self.catalogue.lookup(self.vocabulary.ids).column(column)
        # Values of every type, lists of genres among them, are the same when they read the same.
        _, codes = np.unique([str(value) for value in values.to_pylist()], return_inverse=True)
        return codes.astype(np.int64)
