"""Hand-made features of impressions: what analysts would count of the time before each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.baselines.known_features import KnownFeatures
from tfrec_llm.baselines.links import Links, Values, values_of
from tfrec_llm.baselines.past_counts import PastCounts
from tfrec_llm.data.columns import check_columns, number_column
from tfrec_llm.data.duration import Duration, duration_of
from tfrec_llm.data.id_index import IdIndex
from tfrec_llm.data.labels import as_labels
from tfrec_llm.data.past_rows import require_same_clock
from tfrec_llm.errors import DataError, EmptyLogError, NotFittedError

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog

_WEEKS = ("7D", "28D")
_MOST_KINDS = 8  # of behaviours
_GROUPS = ("candidate", "profile", "context")
_SHARED = ("categorical", "multi")


class ImpressionFeatures:
    """Counts for every impression what lay before it, beside what is known of user and candidate.

    - `user/...`: the user's behaviours before: rows, visits (moments with a behaviour), kinds of
      behaviour, amounts, all in whole and within windows; the time since the last and the first;
      the rate of labels, where the history has labels.
    - `item/...`: the same of the candidate by this user, or of the items that it is about.
    - `anyone/item/...`: the same by all users.
    - `same/NAME/...`: the same of those items that share a value of the feature NAME with the
      candidate, and their share of the user's rows.
    - `candidate/...`, `profile/...`, `context/...`: features of the candidate, the user and the
      impression: numbers, categories and tags, see `KnownFeatures`.

    Whatever happens at or after an impression's time changes none of its features; what features
    are like in general is learned in `fit` alone.

    Args:
        amounts: Numeric context columns of the history to add up, such as what was paid.
        contents: Where candidates are no items of the history, such as campaigns: which items
            each is about, a table with the columns `candidate` and `item`. None: they are items.
        related: The features by which items are like a candidate: feature of the candidates'
            catalogue to feature of the history's. None takes the categorical and multi features
            that both have by the same name.
        windows: Lengths of time to count within. None takes a week and four weeks where the
            times are timestamps, and none where they are numbers.
        known: The features to take of `"candidate"`, `"profile"` and `"context"`; of a group that
            is not named, all.

    Attributes:
        names: Names of the features, after `fit`.

    Raises:
        MissingColumnError: If `contents` lacks a column; in `fit`, if a table lacks one that is
            named here.
        ValueError: If `known` names another group.

    Example:
        >>> shown = tfrec_llm.data.load_impressions("eshop")
        >>> train = shown.take(np.arange(2000))
        >>> features = ImpressionFeatures(known={"context": ["country"]}).fit(train)
        >>> features.transform(train).shape == (2000, len(features.names))
        True
    """

    def __init__(
        self,
        *,
        amounts: Sequence[str] = (),
        contents: pa.Table | None = None,
        related: Mapping[str, str] | None = None,
        windows: Sequence[Duration] | None = None,
        known: Mapping[str, Sequence[str]] | None = None,
    ):
        if contents is not None:
            check_columns(contents.column_names, ["candidate", "item"], "table of contents")
        unknown = set(known or {}) - set(_GROUPS)
        if unknown:
            raise ValueError(f"known has the groups {sorted(unknown)}; groups are {_GROUPS}.")
        self.amounts = tuple(amounts)
        self.contents = contents
        self.related = None if related is None else dict(related)
        self.windows = windows
        self.known = {group: list(names) for group, names in (known or {}).items()}
        self.names: tuple[str, ...] = ()

    def fit(self, log: "BehaviorLog") -> Self:
        """Learns what features there are, and what they are like where nothing is known.

        Args:
            log: Impressions with labels and a history, such as `split.train`.

        Returns:
            Itself.

        Raises:
            EmptyLogError: If there are no impressions, or they have no history.
            NullValueError: If a row lacks its user, item or time.
            DataError: If a label is missing, or no feature differs between two impressions.
        """
        self.fit_transform(log)
        return self

    def fit_transform(self, log: "BehaviorLog") -> np.ndarray:
        """Does what `fit` and then `transform` do, counting once."""
        history = _history(log)
        self._base_rate = float(as_labels(log.column("label")).mean())
        self._kinds: list[str] = []
        if history.has("behavior"):
            counts = pc.value_counts(history.table["behavior"].drop_null()).to_pylist()
            counts.sort(key=lambda one: (-one["counts"], one["values"]))
            self._kinds = [one["values"] for one in counts[:_MOST_KINDS]]
        self._tabled = {
            group: KnownFeatures(table, ids, names=self.known.get(group))
            for group, (table, ids) in self._tables(log).items()
        }
        columns = self._columns(log)
        # Where something never happened, it counts as longest ago.
        self._fills = {
            name: float(np.nanmax(values, initial=0.0)) for name, values in columns.items()
        }
        self.names = tuple(
            name for name, values in columns.items() if np.ptp(self._filled(name, values)) > 0
        )
        if not self.names:
            raise DataError(f"The {len(log):,} impressions do not differ in any feature.")
        return self._matrix(columns)

    def transform(self, log: "BehaviorLog") -> np.ndarray:
        """Returns the features of impressions.

        Args:
            log: Impressions and their history, such as `split.test`; labels are not looked at.

        Returns:
            float32 `[n, len(names)]`.

        Raises:
            NotFittedError: If `fit` was not called.
            EmptyLogError: If there are no impressions, or they have no history.
            NullValueError: If a row lacks its user, item or time.
            DataError: If a feature is not there that was there in `fit`.
        """
        if not self.names:
            raise NotFittedError("These ImpressionFeatures are not fitted: call fit().")
        return self._matrix(self._columns(log))

    def _matrix(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        gone = [name for name in self.names if name not in columns]
        if gone:
            raise DataError(
                f"{len(gone)} features that were there in fit are not, first {gone[0]!r}. Give the "
                "log the catalogue, the users and the history that it had."
            )
        matrix = np.empty((len(next(iter(columns.values()))), len(self.names)), np.float32)
        for place, name in enumerate(self.names):
            matrix[:, place] = self._filled(name, columns[name])
        return matrix

    def _filled(self, name: str, values: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(values), self._fills[name], values)

    def _tables(self, log: "BehaviorLog") -> dict[str, tuple[Any, Any]]:
        """Where what is known stands, and by which ids."""
        context = self.known.get("context", log.context)
        check_columns(log.context, context, "log's context")
        return {
            "candidate": (log.catalogue, log.item),
            "profile": (log.users, log.user),
            "context": (log.table.select(context) if context else None, None),
        }

    def _columns(self, log: "BehaviorLog") -> dict[str, np.ndarray]:
        """Returns all features by name, NaN where something never happened."""
        columns = {}
        for group, (table, ids) in self._tables(log).items():
            for name, values in self._tabled[group].columns(table, ids).items():
                columns[f"{group}/{name}"] = values
        for group, told in self._counted(log, _history(log)).items():
            columns |= {f"{group}/{name}": told[name].astype(np.float32) for name in told}
        return columns

    def _counted(self, log: "BehaviorLog", history: "BehaviorLog") -> dict[str, dict[str, Any]]:
        """Returns what was counted before every impression, by group and name."""
        times, past = log.times(), history.times()
        users, known = history.user_codes()
        askers, asking = log.user_codes()
        askers = IdIndex(known, holder="history").positions(asking)[askers]
        items, item_ids = history.item_codes()
        shown, shown_ids = log.item_codes()
        amounts, labels = self._values(history)
        windows = self._lengths(log)

        def count(keys: np.ndarray, rows: np.ndarray, added: Mapping[str, Any]) -> PastCounts:
            taken = {name: values[rows] for name, values in added.items()}
            rated = None if labels is None else labels[rows]
            return PastCounts(keys, past[rows], amounts=taken, labels=rated)

        ask: dict[str, Any] = {"base_rate": self._base_rate, "windows": windows}
        visits = {"visits": _is_first_of_its_moment(history)}
        by_user = count(users, np.arange(len(history)), visits | amounts)
        groups = {"user": by_user.before(askers, times, **ask)}
        # Of users who were shown nothing, and of what came later, only items are counted.
        was_shown = np.zeros(len(known) + 1, bool)
        was_shown[askers] = True
        concerned = np.flatnonzero(was_shown[users] & (past < times.max()))
        for name, links in self._links(log, item_ids, shown_ids).items():
            owners, tags = links.candidates.of(shown)
            ask |= {"owners": owners, "count": len(log)}
            if name == "item":
                rows, keys = links.items.of(items)
                told = count(keys, rows, {}).before(tags, times[owners], **ask)
                groups["anyone/item"] = told
            rows, keys = links.items.of(items[concerned])
            rows = concerned[rows]
            counts = count(users[rows] * links.size + keys, rows, amounts)
            by = askers[owners]
            keys = np.where(by < 0, -1, by * links.size + tags)
            told = groups[name] = counts.before(keys, times[owners], **ask)
            whole = np.expm1(groups["user"]["rows"])
            told["share"] = np.expm1(told["rows"]) / np.maximum(1.0, whole)
            ask["windows"] = {}  # for what is merely related they say little
        return groups

    def _values(self, history: "BehaviorLog") -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Returns what is added up of behaviours, and their labels, NaN where there is none."""
        amounts = {}
        for name in self.amounts:
            column = number_column(history.column(name), name, pa.float64())
            amounts[name] = pc.fill_null(column, 0.0).to_numpy()
        for kind in self._kinds:
            is_kind = pc.equal(history.table["behavior"], kind)
            amounts[kind] = pc.fill_null(is_kind, False).to_numpy().astype(np.float64)
        if not history.has("label"):
            return amounts, None
        return amounts, history.table["label"].cast(pa.float64()).to_numpy()

    def _lengths(self, log: "BehaviorLog") -> dict[str, float]:
        windows = self.windows
        if windows is None:
            windows = _WEEKS if pa.types.is_timestamp(log.table["time"].type) else ()
        return {str(window): duration_of(log, window, "windows") for window in windows}

    def _links(
        self, log: "BehaviorLog", item_ids: pa.Array, shown_ids: pa.Array
    ) -> dict[str, Links]:
        """Returns by what items and candidates go together, first by what they are."""
        history = _history(log)
        counts = len(item_ids), len(shown_ids)
        items: Values = np.arange(len(item_ids)), item_ids
        if self.contents is not None:
            places = IdIndex(item_ids, holder="history").positions(self.contents["item"])
            known = np.flatnonzero(places >= 0)
            items = places[known], self.contents["candidate"].take(pa.array(known))
        links = {"item": Links.of(items, (np.arange(len(shown_ids)), shown_ids), counts=counts)}
        ours, theirs = log.catalogue, history.catalogue
        related = self.related
        if related is None and ours is not None and theirs is not None:
            both = [name for name in ours.types if name in theirs.types]
            related = {
                name: name
                for name in both
                if ours.types[name] in _SHARED and theirs.types[name] in _SHARED
            }
        for candidates, of_items in (related or {}).items():
            if ours is None or theirs is None:
                raise DataError("related names features, but there are not two catalogues.")
            links[f"same/{candidates}"] = Links.of(
                values_of(theirs, item_ids, of_items),
                values_of(ours, shown_ids, candidates),
                counts=counts,
            )
        return links


def _history(log: "BehaviorLog") -> "BehaviorLog":
    log.require_complete()
    if log.history is None or not len(log):
        raise EmptyLogError(
            "There are no impressions, or they have no history. Attach what users did before, "
            "with BehaviorLog(impressions.table, history=log)."
        )
    log.history.require_complete()
    require_same_clock(log)
    return log.history


def _is_first_of_its_moment(history: "BehaviorLog") -> np.ndarray:
    """Float64: 1 for one behaviour of every moment in which a user did something."""
    order = history.order()
    users, times = history.user_codes()[0][order], history.times()[order]
    first = np.ones(len(history))
    first[order[1:]] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    return first
