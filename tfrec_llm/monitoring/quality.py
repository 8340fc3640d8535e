"""How good lists were for those who saw them, by what they did next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.sequences import padded_rows
from tfrec_llm.data.vocabulary import NUM_RESERVED, UNKNOWN, Vocabulary
from tfrec_llm.metrics import (
    calibration_error,
    catalogue_coverage,
    exposure,
    gini,
    popularity_bias,
    reliability_bins,
)
from tfrec_llm.monitoring.served_log import ServedLog, flat, indexes_of, times_of

_BINS = 10
# Shown items of which a rate can be said.
_FEWEST = 200


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What users did after they were shown lists.

    An event is the outcome of the newest list that showed its item to its user, not longer ago
    than so many seconds.

    Attributes:
        lists: int64 `[shown]`, the list of every item shown; lists without a user show nothing
            here, as nobody knows what came of them.
        places: int64 `[shown]`, its place in the list, from 0.
        chosen: bool `[shown]`, whether it had an outcome.
        converted: bool `[shown]`, whether that was a conversion.
        scores: float64 `[shown]`; NaN where there was none.
        followed: bool `[events]`, whether a list had been shown to the user shortly before.
        hits: bool `[events]`, whether one of these lists had shown the item.
    """

    lists: np.ndarray
    places: np.ndarray
    chosen: np.ndarray
    converted: np.ndarray
    scores: np.ndarray
    followed: np.ndarray
    hits: np.ndarray

    @classmethod
    def of(cls, served: ServedLog, *, within: int, conversions: Sequence[str] = ()) -> "Outcomes":
        """Finds what came of lists.

        Args:
            served: What was recommended and done.
            within: Microseconds in which an event counts for a list.
            conversions: Kinds of behaviour that are conversions, such as `"buy"`.
        """
        lists, events = served.lists, served.events
        list_users, event_users = _numbered(lists["user"], events["user"])
        values, lengths = flat(lists["items"])
        listed, taken = _numbered(values, events["item"])
        row = np.repeat(np.arange(len(lists)), lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        scores = np.full(len(row), np.nan)
        found, counts = flat(lists["scores"])
        if np.array_equal(counts, lengths):
            scores = pc.fill_null(found, np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
        named = list_users[row] >= 0
        row, place, scores, shown = row[named], place[named], scores[named], listed[named]
        list_times, event_times = times_of(lists), times_of(events)
        # The newest list of the user, and the newest that showed this very item.
        newest = _newest_before(list_users, list_times, event_users, event_times, within)
        pairs, event_pairs = _numbered_pairs((list_users[row], shown), (event_users, taken))
        source = _newest_before(pairs, list_times[row], event_pairs, event_times, within)
        chosen = np.zeros(len(row), bool)
        converted = np.zeros(len(row), bool)
        chosen[source[source >= 0]] = True
        if conversions:
            kinds = pc.is_in(events["behavior"], pa.array(list(conversions), pa.string()))
            bought = source[kinds.to_numpy(zero_copy_only=False).astype(bool) & (source >= 0)]
            converted[bought] = True
        return cls(row, place, chosen, converted, scores, newest >= 0, source >= 0)

    def of_lists(self, kept: np.ndarray) -> dict[str, float]:
        """Returns click-through of some lists, bool `[lists]`: NaN where none was shown."""
        here = kept[self.lists]
        chosen = np.unique(self.lists[here & self.chosen])
        shown = np.unique(self.lists[here])
        return {
            "click_through": _mean(self.chosen[here]),
            "list_click_through": len(chosen) / len(shown) if len(shown) else np.nan,
            "conversion": _mean(self.converted[here]),
        }


def quality_of(
    served: ServedLog, outcomes: Outcomes, vocabulary: Vocabulary, counts: np.ndarray
) -> dict[str, float]:
    """Returns what lists and events were like.

    Args:
        served: What was recommended and done.
        outcomes: What came of it.
        vocabulary: The model's.
        counts: Integer `[items]`, how often each item was chosen in training.

    Returns:
        By name; NaN where there is nothing to tell it by:

        - `lists`, `events`, `users`: how many there were;
        - `click_through`: share of the items shown that were chosen soon after;
        - `list_click_through`: share of the lists of which one was;
        - `hit_rate`: share of what users did soon after a list that a list had shown;
        - `conversion`: share of the items shown that were bought;
        - `coverage`, `gini`, `popularity_bias`: of the lists, see `tfrec_llm.metrics`;
        - `unknown_history`, `unknown_events`: share of items that the model does not know;
        - `fallback`, `cold`: share of lists that were made without the model, as it was late or
          as nothing was known of the user;
        - `empty`: share of lists without an item;
        - `p50_milliseconds`, `p95_milliseconds`, `p99_milliseconds`: time to make a list.
    """
    lists, events = served.lists, served.events
    sources = lists["source"].to_numpy()
    values, lengths = flat(lists["items"])
    items = indexes_of(values, vocabulary).astype(np.int64) - NUM_RESERVED
    table = padded_rows(np.maximum(items, -1), lengths, fill=-1)  # -1: empty or not known
    shown = exposure(table, len(vocabulary))
    history, _ = flat(lists["history"])
    users = pa.chunked_array([*lists["user"].chunks, *events["user"].chunks], pa.string())
    times = lists["milliseconds"].to_numpy()
    times = times[~np.isnan(times)]
    p50, p95, p99 = np.percentile(times, [50, 95, 99]) if len(times) else [np.nan] * 3
    found = {
        "lists": len(lists),
        "events": len(events),
        "users": pc.count_distinct(users).as_py(),
        **outcomes.of_lists(np.ones(len(lists), bool)),
        "hit_rate": _mean(outcomes.hits[outcomes.followed]),
        "coverage": catalogue_coverage(shown) if len(lists) else np.nan,
        "gini": gini(shown) if len(lists) else np.nan,
        "popularity_bias": _mean(_present(popularity_bias(table, counts))),
        "unknown_history": _mean(indexes_of(history, vocabulary) == UNKNOWN),
        "unknown_events": _mean(indexes_of(events["item"], vocabulary) == UNKNOWN),
        "fallback": _mean(sources == "fallback"),
        "cold": _mean((sources == "popularity") | (sources == "profile")),
        "empty": _mean(lengths == 0),
        "p50_milliseconds": p50,
        "p95_milliseconds": p95,
        "p99_milliseconds": p99,
    }
    return {name: float(value) for name, value in found.items()}


def live_calibration(
    outcomes: Outcomes, by_model: np.ndarray, is_now: np.ndarray
) -> dict[str, float]:
    """Returns whether scores still mean the click-through that they meant before.

    Scores of a catalogue are no probabilities. What they meant is the rate at which items of
    their tenth were chosen before; of that the click-through of now is measured off. Scores
    between 0 and 1 for all, as those of a click model, count as probabilities themselves.

    Args:
        outcomes: Of then and now.
        by_model: bool `[lists]`, lists that the model made, all by one version.
        is_now: bool `[lists]`, lists of now.

    Returns:
        `calibration_error`, and `calibration_error_by_chance`, which it has on average while
        nothing has changed; NaN where too little was shown.
    """
    usable = by_model[outcomes.lists] & ~np.isnan(outcomes.scores)
    now = usable & is_now[outcomes.lists]
    before = usable & ~is_now[outcomes.lists]
    unknown = {"calibration_error": np.nan, "calibration_error_by_chance": np.nan}
    if now.sum() < _FEWEST:
        return unknown
    scores, chosen = outcomes.scores, outcomes.chosen
    if scores[usable].min() >= 0 and scores[usable].max() <= 1:
        probabilities = scores[now]
    else:
        if before.sum() < _FEWEST:
            return unknown
        borders = np.unique(np.quantile(scores[before], np.linspace(0, 1, _BINS + 1)[1:-1]))
        part = np.searchsorted(borders, scores)
        clicks = np.bincount(part[before], chosen[before], len(borders) + 1)
        shown = np.bincount(part[before], minlength=len(borders) + 1)
        probabilities = ((clicks + 0.5) / (shown + 1.0))[part[now]]
    labels = chosen[now].astype(np.float64)
    return {
        "calibration_error": calibration_error(labels, probabilities, bins=_BINS),
        "calibration_error_by_chance": reliability_bins(
            labels, probabilities, bins=_BINS
        ).error_by_chance,
    }


def _numbered(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the values of two columns alike; a missing one has -1."""
    chunks = [*_chunks(first), *_chunks(second)]
    codes, _ = dictionary_encode(pa.chunked_array(chunks, pa.string()))
    return codes[: len(first)], codes[len(first) :]


def _chunks(values: Any) -> list[pa.Array]:
    return values.chunks if isinstance(values, pa.ChunkedArray) else [values]


def _numbered_pairs(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers pairs of numbers alike; one with a missing part has -1."""
    width = 1 + max(int(right.max(initial=0)) for _, right in (first, second))
    pairs = [
        np.where((left >= 0) & (right >= 0), left * width + right, -1)
        for left, right in (first, second)
    ]
    return pairs[0], pairs[1]


def _newest_before(
    keys: np.ndarray, times: np.ndarray, asked: np.ndarray, moments: np.ndarray, within: int
) -> np.ndarray:
    """Returns the newest row of the same key, not newer than a moment nor much older.

    Args:
        keys: int64 `[n]`; -1 is the key of none.
        times: int64 `[n]`.
        asked: int64 `[m]`, keys.
        moments: int64 `[m]`.
        within: Longest time between.

    Returns:
        int64 `[m]`, rows; -1 where there is none.
    """
    size = len(keys)
    all_keys = np.concatenate([keys, asked])
    all_times = np.concatenate([times, moments])
    asks = np.arange(len(all_keys)) >= size
    order = np.lexsort((asks, all_times, all_keys))
    # Of every place the last row before it, which counts if it is of the same key.
    last = np.maximum.accumulate(np.where(asks[order], -1, np.arange(len(order))))
    row = np.where(last >= 0, order[np.maximum(last, 0)], -1)
    fits = (row >= 0) & (all_keys[order] >= 0) & (all_keys[row] == all_keys[order])
    fits &= all_times[order] - all_times[row] <= within
    found = np.empty(len(order), np.int64)
    found[order] = np.where(fits, row, -1)
    return found[size:]


def _present(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else np.nan
