"""Lists for users of whom no behaviour is known."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import DataError
from tfrec_llm.serving.profile_counts import ProfileCounts

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue

POPULARITY, PROFILE = "popularity", "profile"

# Items of a list that is kept at hand, and how many such lists.
_LONGEST, _LISTS = 2000, 256


@dataclass(frozen=True)
class Ranked:
    """The best items for one user, the best first.

    Attributes:
        items: Raw ids.
        scores: Their scores.
        source: Which way they were made: `"model"`, `"profile"` or `"popularity"`.
    """

    items: list[Any]
    scores: list[float]
    source: str


class ColdStart:
    """Ranks items by how often they occur, for users of a profile and in a context.

    Args:
        vocabulary: The items and how often they occur.
        allowed: Bool `[items]`, what may be recommended; None for all.
        profiles: What users of a profile take; None where no profiles are known.
        catalogue: What is known of the items; None where nothing is.

    Example:
        >>> cold = ColdStart(Vocabulary.fit(["a", "b", "b", "c", "c", "c"]))
        >>> cold.recommend(2, without=["c"])
        Ranked(items=['b', 'a'], scores=[2.0, 1.0], source='popularity')
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        allowed: np.ndarray | None = None,
        profiles: ProfileCounts | None = None,
        catalogue: "Catalogue | None" = None,
    ):
        self._vocabulary = vocabulary
        self._counts = vocabulary.counts[NUM_RESERVED:].astype(np.float32)
        self._allowed = allowed
        self._profiles = profiles
        self._catalogue = catalogue
        self._columns: dict[str, dict[str, np.ndarray]] = {}
        self._lists: OrderedDict[Any, Ranked] = OrderedDict()
        self._lock = threading.Lock()

    def recommend(
        self,
        k: int,
        *,
        without: Sequence[Any] = (),
        profile: Mapping[str, Any] | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Ranked:
        """Returns the best items.

        Args:
            k: How many, of 2,000 at most.
            without: Raw ids to leave out.
            profile: What is known of the user, by feature.
            context: Values of columns of the catalogue, such as the category of the page: only
                items that have them are listed. A value that no item has is passed over.

        Raises:
            DataError: If a feature of the profile or a column of the context is not known here.
        """
        ranked = self._ranked(profile or {}, context or {})
        left_out = set(without)
        places = [place for place, raw in enumerate(ranked.items) if raw not in left_out][:k]
        return Ranked(
            [ranked.items[place] for place in places],
            [ranked.scores[place] for place in places],
            ranked.source,
        )

    def _ranked(self, profile: Mapping[str, Any], context: Mapping[str, str]) -> Ranked:
        """Returns the longest list, which is kept for the next who asks alike."""
        key = repr((sorted(profile.items()), sorted(context.items())))
        with self._lock:
            if key in self._lists:
                self._lists.move_to_end(key)
                return self._lists[key]
        made = self._make(profile, context)
        with self._lock:
            self._lists[key] = made
            if len(self._lists) > _LISTS:
                self._lists.popitem(last=False)
        return made

    def _make(self, profile: Mapping[str, Any], context: Mapping[str, str]) -> Ranked:
        lifts = None
        if profile:
            if self._profiles is None:
                raise DataError(
                    "This model was exported without profiles: a profile tells it nothing."
                )
            lifts = self._profiles.lifts(profile)
        scores = self._counts if lifts is None else np.log1p(self._counts) + lifts
        kept = np.ones(len(scores), bool) if self._allowed is None else self._allowed.copy()
        for column, value in context.items():
            places = self._values_of(column).get(value)
            if places is not None:
                here = np.zeros(len(scores), bool)
                here[places] = True
                kept &= here
        candidates = np.flatnonzero(kept)
        order = candidates[np.argsort(-scores[candidates], kind="stable")[:_LONGEST]]
        return Ranked(
            self._vocabulary.decode(order + NUM_RESERVED).tolist(),
            scores[order].tolist(),
            POPULARITY if lifts is None else PROFILE,
        )

    def _values_of(self, column: str) -> dict[str, np.ndarray]:
        """Returns the items that have each value of a column."""
        if column in self._columns:
            return self._columns[column]
        if self._catalogue is None or self._catalogue.types.get(column) not in (
            "categorical",
            "multi",
        ):
            raise DataError(f"{column!r} is no column of categories in the model's catalogue.")
        items: dict[str, list[int]] = {}
        rows = self._catalogue.lookup(self._vocabulary.ids)[column].to_pylist()
        for place, value in enumerate(rows):
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    items.setdefault(str(one), []).append(place)
        self._columns[column] = {value: np.array(places) for value, places in items.items()}
        return self._columns[column]
