import numpy as np
import pyarrow as pa
import pytest

from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.monitoring import Outcomes, ServedLog
from tfrec_llm.monitoring.quality import live_calibration, quality_of
from tfrec_llm.serving.recording import EVENTS, LISTS, SCHEMAS

MINUTE = 60_000_000


def served(lists, events):
    """Makes a record of (minute, user, items, scores) and (minute, user, item, behavior)."""
    rows = [
        (time * MINUTE, user, 1, "model", 5.0, 1, ["a"], None, list(items), scores)
        for time, user, items, scores in lists
    ]
    events = [(time * MINUTE, *one) for time, *one in events]
    tables = []
    for kind, found in ((LISTS, rows), (EVENTS, events)):
        columns = list(zip(*found, strict=True)) or [[] for _ in SCHEMAS[kind]]
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, SCHEMAS[kind], strict=True)
        ]
        tables.append(pa.table(arrays, schema=SCHEMAS[kind]))
    return ServedLog(*tables)


RECORD = served(
    [
        (0, "anna", "abc", [3.0, 2.0, 1.0]),
        (5, "anna", "bde", [3.0, 2.0, 1.0]),
        (6, "berta", "abc", [3.0, 2.0, 1.0]),
        (7, None, "abc", [3.0, 2.0, 1.0]),
    ],
    [
        (6, "anna", "b", "view"),  # of both her lists the newer one
        (7, "anna", "c", "buy"),  # of her older one
        (8, "anna", "z", "view"),  # of none
        (50, "anna", "d", "view"),  # too late
        (5, "berta", "a", "view"),  # before her list
        (9, "clara", "a", "view"),  # without a list
    ],
)


def test_an_event_is_the_outcome_of_the_newest_list_that_showed_its_item():
    found = Outcomes.of(RECORD, within=30 * MINUTE, conversions=["buy"])
    chosen = {
        (int(one), int(place))
        for one, place in zip(found.lists[found.chosen], found.places[found.chosen], strict=True)
    }
    assert chosen == {(1, 0), (0, 2)}
    assert found.converted.sum() == 1
    assert found.followed.tolist() == [True, True, True, False, False, False]
    assert found.hits.tolist() == [True, True, False, False, False, False]
    assert set(found.lists) == {0, 1, 2}, "nobody knows what came of a list without a user"


def test_quality_counts_what_was_shown_chosen_and_unknown():
    vocabulary = Vocabulary(list("abcd"))
    outcomes = Outcomes.of(RECORD, within=30 * MINUTE, conversions=["buy"])
    quality = quality_of(RECORD, outcomes, vocabulary, np.array([9, 5, 1, 1]))
    assert quality["click_through"] == pytest.approx(2 / 9)
    assert quality["list_click_through"] == pytest.approx(2 / 3)
    assert quality["hit_rate"] == pytest.approx(2 / 3)
    assert quality["conversion"] == pytest.approx(1 / 9)
    assert quality["coverage"] == 1.0
    assert quality["unknown_events"] == pytest.approx(1 / 6)
    assert quality["unknown_history"] == 0.0
    assert (quality["lists"], quality["events"], quality["users"]) == (4, 6, 3)
    assert (quality["fallback"], quality["empty"], quality["p99_milliseconds"]) == (0, 0, 5)


def test_a_record_of_nothing_has_no_quality():
    nothing = served([], [])
    quality = quality_of(nothing, Outcomes.of(nothing, within=1), Vocabulary(["a"]), np.array([1]))
    assert quality["lists"] == 0
    assert np.isnan(quality["click_through"])
    assert np.isnan(quality["coverage"])


@pytest.mark.parametrize(("scale", "worse"), [(1.0, False), (0.3, True)])
def test_scores_that_lose_their_meaning_show_as_calibration_error(scale, worse):
    rng = np.random.default_rng(0)
    lists, events = [], []
    for minute in range(2000):
        scores = rng.normal(size=3)
        lists.append((minute, "anna", "abc", scores.tolist()))
        rates = 1 / (1 + np.exp(1 - 2 * scores)) * (scale if minute >= 1000 else 1.0)
        events += [
            (minute, "anna", item, "view")
            for item, rate in zip("abc", rates, strict=True)
            if rng.random() < rate
        ]
    record = served(lists, events)
    outcomes = Outcomes.of(record, within=0)
    now = np.arange(2000) >= 1000
    found = live_calibration(outcomes, np.ones(2000, bool), now)
    error, chance = found["calibration_error"], found["calibration_error_by_chance"]
    assert (error > 4 * chance) == worse
    assert np.isnan(live_calibration(outcomes, np.zeros(2000, bool), now)["calibration_error"])
