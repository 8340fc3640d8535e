"""The second stage of a recommender."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa

from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.errors import DataError
from tfrec_llm.reranking.choosing import choose
from tfrec_llm.reranking.item_columns import ItemColumns
from tfrec_llm.reranking.likeness import Cosine, Likeness
from tfrec_llm.reranking.shortlists import Shortlists

if TYPE_CHECKING:
    from tfrec_llm.data.feature_encoding import FeatureEncoding
    from tfrec_llm.data.vocabulary import Vocabulary
    from tfrec_llm.evaluation.scorer import Scorer
    from tfrec_llm.models.ranking_model import RankingModel


class Reranker:
    """Ranks what a scorer recommends anew: by a model, by expected value, by rules.

    Hand it to `recommend(reranker=...)` of a `Recommender`, a floor or a `Blend`. The scorer
    gives each user's best `num_candidates` items. The model says how likely the user takes each
    of them now, after all that they did. The rules then fill the list place by place.

    Args:
        model: A `RankingModel`, such as a `ClickModel`, trained on the vocabulary of the scorer.
            None keeps the scorer's own scores, for rules alone.
        num_candidates: Items that the scorer gives a user, `k` at the least. Where quotas leave a
            list too short, raise it.
        task: Which probability, of a model that gives several, such as `"conversion"`.
        value: A numeric column of the catalogue, such as `"price"`: items are ranked by expected
            value, probability times value.
        default_value: Value of items that have none; None makes such an item an error.
        candidates: Vocabulary of the model's `candidate_embedding` or `contents`, if it is
            another than the scorer's.
        profiles: Vocabulary of the model's `user_embedding`. New users have the unknown profile.
        context: The encoding of the context that the model was trained with.
        moment: What the context is now, a value a column, such as `{"hour": 20}`; see `at`.
        quotas: At most how many items of a list have the same value in a column of the
            catalogue, such as `{"category": 3}`. Items without a value are not limited.
        diversity: 0 to 1, by how much a place goes to an item that is unlike those before it
            (maximal marginal relevance): `(1 - diversity) * score - diversity * likeness`, the
            scores scaled to 0..1 for each user, and the likeness that to the most like one.
        diversity_by: A column of the catalogue that tells items apart: by equal values, by shared
            words where it holds lists or texts (Jaccard), by cosine where it holds vectors. None
            takes the cosine of the scorer's item vectors.
        max_length: Newest behaviours that the model reads; None for its encoder's.
        histories: How it reads them, `"own"` or `"masked"`, see `RankingBatches`; None takes
            `"own"` for a causal encoder and `"masked"` for one that looks both ways.
        batch_size: Candidates the model scores at a time, about.

    Raises:
        TypeError: If the model is no `RankingModel`.
        ValueError: If an option is out of range, or does not fit the model.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(num_users=80, num_items=30).simulate()
        >>> popular = tfrec_llm.baselines.Popularity().fit(log)
        >>> one_each = Reranker(quotas={"category": 1})
        >>> found = popular.recommend(histories=[[]], k=3, reranker=one_each)
        >>> log.catalogue.lookup(found["item"])["category"].to_pylist()
        ['category 1', 'category 5', 'category 2']

        >>> encoder = tfrec_llm.models.BehaviorEncoder(popular.vocabulary.size, emb_dim=8)
        >>> clicks = tfrec_llm.models.ClickModel(encoder)  # to be trained on impressions
        >>> by_revenue = Reranker(clicks, value="price", num_candidates=20)
        >>> len(popular.recommend(histories=[[7, 8], []], k=3, reranker=by_revenue))
        6

    Reference:
        Deep Neural Networks for YouTube Recommendations,
        https://doi.org/10.1145/2959100.2959190;
        The use of MMR, https://doi.org/10.1145/290941.291025
    """

    def __init__(
        self,
        model: "RankingModel | None" = None,
        *,
        num_candidates: int = 200,
        task: str | None = None,
        value: str | None = None,
        default_value: float | None = None,
        candidates: "Vocabulary | None" = None,
        profiles: "Vocabulary | None" = None,
        context: "FeatureEncoding | None" = None,
        moment: Mapping[str, Any] | None = None,
        quotas: Mapping[str, int] | None = None,
        diversity: float = 0.0,
        diversity_by: str | None = None,
        max_length: int | None = None,
        histories: Literal["own", "masked"] | None = None,
        batch_size: int = 4096,
    ):
        for name, number in (
            ("num_candidates", num_candidates),
            ("batch_size", batch_size),
            ("max_length", 1 if max_length is None else max_length),
            *((f"The quota of {column!r}", quota) for column, quota in (quotas or {}).items()),
        ):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number}.")
        if not 0.0 <= diversity <= 1.0:
            raise ValueError(f"diversity must be from 0 to 1, got {diversity}.")
        if default_value is not None and value is None:
            raise ValueError("default_value needs value=, the column that it stands in for.")
        if default_value is not None and not 0.0 <= default_value < np.inf:
            raise ValueError(f"default_value must be a number of 0 or more, got {default_value}.")
        of_model: dict[str, Any] = {
            "task": task,
            "candidates": candidates,
            "profiles": profiles,
            "context": context,
            "moment": dict(moment) if moment else None,
            "max_length": max_length,
            "histories": histories,
        }
        self.num_candidates = num_candidates
        self.value = value
        self.default_value = default_value
        self.quotas = dict(quotas or {})
        self.diversity = diversity
        self.diversity_by = diversity_by
        self._model: Any = None
        if model is not None:
            from tfrec_llm.reranking.candidate_model import CandidateModel

            given = {name: option for name, option in of_model.items() if option is not None}
            self._model = CandidateModel(model, batch_size=batch_size, **given)
            return
        if value is not None:
            raise ValueError(
                "value needs a model: a scorer's own scores are no probabilities to multiply."
            )
        unused = [name for name, option in of_model.items() if option is not None]
        if unused:
            raise ValueError(f"Without a model, leave out {', '.join(unused)}.")

    def at(self, **moment: Any) -> Self:
        """Returns a copy for another moment.

        Args:
            **moment: Values of context columns; those not named stay as they are.

        Raises:
            ValueError: If the context has no such column, or the model reads none.
        """
        if self._model is None:
            raise ValueError("There is no model, so no moment makes a difference.")
        other = copy.copy(self)
        other._model = dataclasses.replace(self._model, moment={**self._model.moment, **moment})
        return other

    def bound_to(self, scorer: "Scorer", items: np.ndarray) -> "BoundReranker":
        """Makes ready for the lists of a scorer; `recommend` does that.

        Args:
            scorer: The first stage.
            items: int `[m]`, all that may be on its lists, counted from the first.

        Raises:
            DataError: If there is no catalogue, column, value or vector that is needed.
            ValueError: If the model was made for other items, or the moment is not whole.
        """
        return BoundReranker(self, scorer, items)


class BoundReranker:
    """A `Reranker` that is ready for the lists of one scorer."""

    def __init__(self, reranker: Reranker, scorer: "Scorer", items: np.ndarray):
        columns = ItemColumns(scorer.catalogue, scorer.vocabulary)
        self._quotas = [(columns.same(name), most) for name, most in reranker.quotas.items()]
        self._diversity = reranker.diversity
        self._likeness = _likeness(reranker, scorer, columns)
        self._values: np.ndarray | None = None
        if reranker.value is not None:
            self._values = columns.values(
                reranker.value, default=reranker.default_value, items=items
            )
        self._model: Any = None
        if reranker._model is not None:
            self._model = reranker._model.for_items(scorer.vocabulary)

    def rerank(
        self, found: Shortlists, k: int, *, sequences: UserSequences, names: pa.Array | None
    ) -> Shortlists:
        """Returns the best `k` of what a scorer found.

        Args:
            found: The candidates, the scorer's best first.
            k: Places of a list.
            sequences: What the users did.
            names: Their raw ids; None where they have none.
        """
        if self._model is not None:
            scores = self._model.score(sequences, names, found.items)
            if self._values is not None:
                filled = found.items >= 0
                scores[filled] *= self._values[found.items[filled]]
            found = Shortlists(found.items, scores)
        return choose(
            found, k, quotas=self._quotas, diversity=self._diversity, likeness=self._likeness
        )


def _likeness(reranker: Reranker, scorer: "Scorer", columns: ItemColumns) -> Likeness | None:
    if reranker.diversity_by is not None:
        return columns.likeness(reranker.diversity_by)
    if reranker.diversity == 0.0:
        return None
    some = scorer.vectors_of(np.zeros(0, np.int64))
    if some is None:
        raise DataError(
            f"{type(scorer).__name__} has no vectors of items that say how alike they are: name a "
            "column of the catalogue with diversity_by=."
        )

    def vectors(items: np.ndarray) -> np.ndarray:
        found = scorer.vectors_of(items)
        assert found is not None
        return found

    return Cosine(vectors, some.shape[1])
