"""A look at how a served model does: quality, drift and anomalies, and what rings the alarm."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tfrec_llm.data.vocabulary import NUM_RESERVED, UNKNOWN, Vocabulary
from tfrec_llm.errors import DataError
from tfrec_llm.monitoring.anomalies import Anomaly, find_anomalies
from tfrec_llm.monitoring.drift import EMBEDDING, Drift, enough
from tfrec_llm.monitoring.quality import Outcomes, live_calibration, quality_of
from tfrec_llm.monitoring.report import Alarm, MonitoringReport, Series
from tfrec_llm.monitoring.served_log import ServedLog, flat, indexes_of, times_of
from tfrec_llm.serving.exported_model import ExportedModel
from tfrec_llm.serving.snapshot import counts_by_category

# Histories of which users' vectors are computed anew.
_SAMPLE = 1000
_DAY = 86_400_000_000

Duration = str | datetime.timedelta


@dataclass(frozen=True)
class Limits:
    """What rings the alarm.

    Attributes:
        drift: Population stability index beyond what chance makes.
        fallback: Share of lists that were made without the model.
        unknown: Share of items, of histories or events, that the model does not know.
        calibration: Calibration error beyond three times what chance makes.
        anomaly: Robust standard deviations of traffic, latency or click-through from the usual.
    """

    drift: float = 0.2
    fallback: float = 0.05
    unknown: float = 0.2
    calibration: float = 0.05
    anomaly: float = 6.0


def monitor(
    served: ServedLog,
    model: ExportedModel,
    *,
    window: Duration = "1d",
    until: datetime.datetime | None = None,
    within: Duration = "30min",
    bucket: Duration = "1h",
    conversions: Sequence[str] = (),
    limits: Limits | None = None,
    seed: int = 0,
) -> MonitoringReport:
    """Compares the newest traffic with what was before and with the model's training.

    Args:
        served: The record; what lies before the window is what is usual.
        model: The exported version whose training is compared with.
        window: The newest stretch, which quality and drift are about.
        until: Its end; None for the end of the record.
        within: Time in which an event counts as the outcome of a list.
        bucket: Stretches in which traffic, latency and click-through are looked at.
        conversions: Kinds of behaviour that are conversions, such as `["buy"]`.
        limits: What rings the alarm.
        seed: Of the sample of histories whose vectors are computed.

    Returns:
        The report.

    Raises:
        DataError: If a duration is none.
    """
    limits = limits or Limits()
    lengths = {
        name: _microseconds(name, value)
        for name, value in {"window": window, "within": within, "bucket": bucket}.items()
    }
    end = _end(served, lengths["within"]) if until is None else int(until.timestamp() * 1e6)
    served = served.between(served.span[0], end)
    first = end - lengths["window"]
    now = served.between(first, end)
    vocabulary = model.vocabulary
    counts = vocabulary.counts[NUM_RESERVED:]
    whole = Outcomes.of(served, within=lengths["within"], conversions=conversions)
    outcomes = Outcomes.of(now, within=lengths["within"], conversions=conversions)
    quality = quality_of(now, outcomes, vocabulary, counts)
    own = pc.equal(served.lists["version"], model.version).to_numpy()
    by_model = own & (served.lists["source"].to_numpy() == "model")
    quality |= live_calibration(whole, by_model, times_of(served.lists) >= first)
    drifts = _drifts(now, model, seed)
    series = _series(served, whole, lengths["bucket"], lengths["within"], end)
    anomalies = [
        found
        for one in series
        for found in find_anomalies(
            one.name,
            one.times,
            one.values,
            season=max(1, round(_DAY / lengths["bucket"])),
            chance=one.chance,
            limit=limits.anomaly,
        )
    ]
    alarms = _alarms(quality, drifts, [one for one in anomalies if one.time >= first], limits)
    return MonitoringReport(
        version=model.version,
        first=first,
        last=end,
        quality=quality,
        versions=_by_version(now, outcomes),
        drifts=drifts,
        series=series,
        anomalies=anomalies,
        alarms=alarms,
    )


def _end(served: ServedLog, within: int) -> int:
    """Returns the end of a record, which events from fast clocks do not move far."""
    last = served.span[1]
    if len(served.lists):
        last = min(last, int(times_of(served.lists)[-1]) + within)
    return last + 1


def _drifts(now: ServedLog, model: ExportedModel, seed: int) -> list[Drift]:
    """Compares what is seen now with the snapshot of the training, as far as there is one."""
    snapshot = model.snapshot
    if snapshot is None:
        return []
    found: list[Drift] = []
    vocabulary = model.vocabulary
    if enough(now.events):
        indexes = indexes_of(now.events["item"], vocabulary)
        counts = np.bincount(indexes, minlength=vocabulary.size)
        present = counts[NUM_RESERVED:]
        found.append(
            Drift.of_counts(
                "items",
                _counted(vocabulary, snapshot.item_counts) | {None: snapshot.unknown_count},
                _counted(vocabulary, present) | {None: int(counts[UNKNOWN])},
            )
        )
        if model.catalogue is not None:
            before = snapshot.category_counts(vocabulary, model.catalogue)
            current = counts_by_category(model.catalogue, vocabulary.ids, present)
            for name, values in before.items():
                if values:
                    found.append(Drift.of_counts(name, values, current[name]))
    lengths = now.lists["history_length"].drop_null().to_numpy()
    if enough(lengths) and enough(snapshot.lengths):
        found.append(Drift.of_values("history length", snapshot.lengths, lengths))
    own = pc.and_(
        pc.equal(now.lists["version"], model.version), pc.equal(now.lists["source"], "model")
    )
    lists = now.lists.filter(own)
    scores, sizes = flat(lists["scores"])
    starts = (np.cumsum(sizes) - sizes)[sizes > 0]
    best = scores.to_numpy(zero_copy_only=False)[starts]
    if enough(best) and enough(snapshot.best_scores):
        found.append(Drift.of_values("best score", snapshot.best_scores, best))
    warm = lists.filter(pc.greater(pc.list_value_length(lists["history"]), 0))
    if enough(warm) and enough(snapshot.projections.T):
        vectors = _vectors(warm, model, seed)
        for number, (direction, before) in enumerate(
            zip(snapshot.directions, snapshot.projections, strict=True), start=1
        ):
            found.append(Drift.of_values(f"{EMBEDDING} {number}", before, vectors @ direction))
    return found


def _vectors(lists: Any, model: ExportedModel, seed: int) -> np.ndarray:
    """Computes the users' vectors of a sample of lists anew, from the histories kept with them."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(lists), min(_SAMPLE, len(lists)), replace=False))
    sample = lists.take(rows)
    histories = [[model.raw_id(one) for one in row] for row in sample["history"].to_pylist()]
    kinds = [
        behaviors if behaviors is not None else [""] * len(history)
        for behaviors, history in zip(sample["behaviors"].to_pylist(), histories, strict=True)
    ]
    blocks = [
        model.embed(histories[start : start + 256], behaviors=kinds[start : start + 256])
        for start in range(0, len(histories), 256)
    ]
    return np.concatenate(blocks)


def _series(
    served: ServedLog, outcomes: Outcomes, bucket: int, within: int, end: int
) -> list[Series]:
    """Returns traffic, latency and click-through by stretches of time that are over."""
    list_times = times_of(served.lists)
    if not len(list_times):
        return []
    # Events may be older: what users did before was handed in with them.
    first = int(list_times[0]) // bucket * bucket
    count = max(0, (end - first) // bucket)
    if not count:
        return []
    times = first + bucket * np.arange(count)
    places = (list_times - first) // bucket
    here = places < count
    lists = np.bincount(places[here], minlength=count).astype(np.float64)
    event_places = (times_of(served.events) - first) // bucket
    present = (event_places >= 0) & (event_places < count)
    events = np.bincount(event_places[present], minlength=count).astype(np.float64)
    latency = np.full(count, np.nan)
    taken = served.lists["milliseconds"].to_numpy(zero_copy_only=False)
    starts = np.searchsorted(places, np.arange(count + 1))
    for place in np.flatnonzero(lists):
        latency[place] = np.percentile(taken[starts[place] : starts[place + 1]], 95)
    # Of the newest stretches not all has come that may come of their lists.
    over = np.flatnonzero(times + bucket + within <= end)
    shown_places = places[outcomes.lists]
    shown = np.bincount(shown_places[shown_places < count], minlength=count)[over]
    chosen_places = shown_places[outcomes.chosen]
    chosen = np.bincount(chosen_places[chosen_places < count], minlength=count)[over]
    rate = np.divide(chosen, shown, out=np.full(len(over), np.nan), where=shown > 0)

    def of_count(expected: np.ndarray) -> np.ndarray:
        # A tenth more or less is nobody's alarm; and a visit brings several at once.
        return np.sqrt(np.maximum(expected, 1.0)) + 0.1 * expected

    def of_latency(expected: np.ndarray) -> np.ndarray:
        return 0.25 * expected + 1.0

    def of_rate(expected: np.ndarray) -> np.ndarray:
        expected = np.clip(expected, 1e-4, 1.0)
        return np.sqrt(expected * (1 - expected) / np.maximum(shown, 1)) + 0.1 * expected

    return [
        Series("lists", times, lists, of_count),
        Series("events", times, events, of_count),
        Series("p95_milliseconds", times, latency, of_latency),
        Series("click_through", times[over], rate, of_rate),
    ]


def _by_version(now: ServedLog, outcomes: Outcomes) -> dict[int, dict[str, float]]:
    versions = now.lists["version"].to_numpy()
    return {
        int(version): {
            "lists": float(np.count_nonzero(versions == version)),
            **outcomes.of_lists(versions == version),
        }
        for version in np.unique(versions)
    }


def _alarms(
    quality: dict[str, float], drifts: list[Drift], anomalies: list[Anomaly], limits: Limits
) -> list[Alarm]:
    found = []
    for drift in drifts:
        if drift.excess > limits.drift:
            words = f"{drift.name} drifted from training: population stability index"
            found.append(Alarm(f"drift of {drift.name}", words, drift.excess, limits.drift))
    for name, limit, words in (
        ("fallback", limits.fallback, "lists are made without the model: share"),
        ("unknown_history", limits.unknown, "histories hold items that the model lacks: share"),
        ("unknown_events", limits.unknown, "users choose items that the model lacks: share"),
    ):
        if quality[name] > limit:
            found.append(Alarm(name, words, quality[name], limit))
    error, chance = quality["calibration_error"], quality["calibration_error_by_chance"]
    if error - 3 * chance > limits.calibration:
        words = "scores no longer mean what they meant: calibration error"
        found.append(Alarm("calibration", words, error, limits.calibration + 3 * chance))
    for name in dict.fromkeys(one.series for one in anomalies):
        own = [one for one in anomalies if one.series == name]
        worst = max(own, key=lambda one: abs(one.score))
        way = "above" if worst.score > 0 else "below"
        moment = datetime.datetime.fromtimestamp(worst.time / 1e6, datetime.UTC)
        words = (
            f"{name} is {worst.value:.4g} where {worst.expected:.4g} is usual at "
            f"{moment:%Y-%m-%d %H:%M}: robust standard deviations {way}"
        )
        found.append(Alarm(f"anomaly of {name}", words, abs(worst.score), limits.anomaly))
    return found


def _counted(vocabulary: Vocabulary, counts: np.ndarray) -> dict[Any, int]:
    places = np.flatnonzero(counts)
    names = vocabulary.decode(places + NUM_RESERVED).tolist()
    return dict(zip(names, counts[places].tolist(), strict=True))


def _microseconds(name: str, value: Duration) -> int:
    import pandas as pd

    try:
        # Days are D in the pandas to come, and d in most people's minds.
        written = re.sub(r"(?<=[0-9 ])d\b", "D", value) if isinstance(value, str) else value
        length = round(pd.Timedelta(written) / pd.Timedelta(microseconds=1))
    except ValueError as error:
        raise DataError(f'{name} is {value!r}; it is no duration as "30min" is.') from error
    if length < 1:
        raise DataError(f"{name} must be above 0, got {value!r}.")
    return length
