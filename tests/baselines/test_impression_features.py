import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfrec_llm.baselines.impression_features import ImpressionFeatures
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.feature_table import Catalogue, UserTable
from tfrec_llm.errors import (
    DataError,
    EmptyLogError,
    MissingColumnError,
    MixedTypeError,
    NotFittedError,
)

DAY = 86_400_000_000
AMOUNTS = ["paid"]


def moments(days):
    return pd.Timestamp("2024-01-01") + pd.to_timedelta(days, unit="D")


def history_frame(seed, rows=400):
    """What 12 users did with 20 items in 60 days, in no order, much of it at the same moment."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": rng.integers(12, size=rows),
            "item": rng.integers(20, size=rows),
            "time": moments(rng.integers(60, size=rows)),
            "behavior": rng.choice(["view", "buy"], rows),
            "label": rng.integers(2, size=rows).astype(float),
            "paid": rng.exponential(10, rows).round(2),
        }
    )


def shown_frame(seed, rows=150):
    rng = np.random.default_rng([seed, 1])
    return pd.DataFrame(
        {
            "user": rng.integers(-2, 12, size=rows),  # two of them did nothing
            "item": rng.integers(22, size=rows),  # two of them nobody ever took
            "time": moments(rng.integers(60, size=rows)),
            "label": rng.integers(2, size=rows).astype(float),
            "device": rng.choice(["phone", "desk", None], rows),
        }
    )


def catalogue(items=22):
    return Catalogue(
        pa.table(
            {
                "item": np.arange(items),
                "colour": [["red", "blue", None][i % 3] for i in range(items)],
                "tags": [[f"t{i % 4}", f"t{i % 5}"] for i in range(items)],
                "price": [float(i) for i in range(items)],
            }
        )
    )


def people():
    return UserTable(pa.table({"user": [0, 1, 2], "age": [30, None, 50], "sex": ["f", "m", None]}))


def impressions(shown, done, *, items=None):
    log = BehaviorLog.from_pandas(done, behavior="behavior", label="label", context=["paid"])
    log = BehaviorLog(log.table, catalogue=catalogue())
    table = BehaviorLog.from_pandas(shown, label="label", context=["device"]).table
    return BehaviorLog(table, catalogue=items or catalogue(), users=people(), history=log)


def by_name(features, matrix):
    return {name: matrix[:, place] for place, name in enumerate(features.names)}


def made(log, **arguments):
    features = ImpressionFeatures(amounts=AMOUNTS, windows=["7D"], **arguments)
    return features, by_name(features, features.fit_transform(log))


def counts_of(one, earlier):
    return {
        "rows": np.log1p(len(earlier)),
        "paid": np.arcsinh(earlier.paid.sum()),
        "buy": np.arcsinh((earlier.behavior == "buy").sum()),
        "rate": (earlier.label.sum() + 5 * one.base) / (len(earlier) + 5),
        "last": np.log1p((one.time - earlier.time.max()) / pd.Timedelta(microseconds=1)),
        "first": np.log1p((one.time - earlier.time.min()) / pd.Timedelta(microseconds=1)),
    }


@pytest.mark.parametrize("seed", range(3))
def test_features_are_what_is_counted_row_by_row(seed):
    shown, done = shown_frame(seed), history_frame(seed)
    _, told = made(impressions(shown, done))
    words = catalogue().to_pandas().set_index("item")
    shown["base"] = shown.label.mean()
    for row, one in shown.iterrows():
        earlier = done[done.time < one.time]
        mine = earlier[earlier.user == one.user]
        tags = set(words.tags[one["item"]])
        alike = [(0 if item > 21 else len(tags & set(words.tags[item]))) for item in mine["item"]]
        expected = {
            "user": mine,
            "item": mine[mine["item"] == one["item"]],
            "anyone/item": earlier[earlier["item"] == one["item"]],
            "same/colour": mine[
                mine["item"].map(words.colour).eq(words.colour[one["item"]])
                & mine["item"].map(words.colour).notna()
            ],
            "same/tags": mine.loc[mine.index.repeat(alike)],
        }
        for group, rows in expected.items():
            for name, value in counts_of(one, rows).items():
                if f"{group}/{name}" not in told or (name in ("last", "first") and not len(rows)):
                    continue
                found = told[f"{group}/{name}"][row]
                assert found == pytest.approx(value, abs=1e-4), (group, name)
        week = mine[mine.time >= one.time - pd.Timedelta(days=7)]
        assert told["user/rows/7D"][row] == pytest.approx(np.log1p(len(week)), abs=1e-5)
        assert told["user/visits"][row] == pytest.approx(np.arcsinh(mine.time.nunique()), abs=1e-5)
        share = len(expected["same/tags"]) / max(1, len(mine))
        assert told["same/tags/share"][row] == pytest.approx(share, abs=1e-4)
    assert {"user/buy", "user/view/7D", "item/rate", "anyone/item/rows/7D"} <= set(told)


def changed_from(done, moment, how):
    """The history with all that is not before a moment changed."""
    later = done.time >= moment
    if how == "gone":
        return done[~later]
    done = done.copy()
    if how == "shuffled":
        for name in ("user", "item", "behavior", "paid", "label"):
            done.loc[later, name] = done.loc[later, name].sample(frac=1, random_state=1).to_numpy()
    elif how == "doubled":
        return pd.concat([done, done[later], done[later]], ignore_index=True)
    else:
        done.loc[later, "label"] = 1 - done.loc[later, "label"]
        done.loc[later, "paid"] += 1000.0
    return done


@pytest.mark.parametrize("how", ["gone", "shuffled", "doubled", "altered"])
@pytest.mark.parametrize("seed", range(2))
def test_what_happens_at_or_after_an_impression_changes_none_of_its_features(how, seed):
    shown, done = shown_frame(seed), history_frame(seed)
    features = ImpressionFeatures(amounts=AMOUNTS, windows=["7D"])
    whole = features.fit_transform(impressions(shown, done))
    for day in (10, 30, 45):
        moment = moments(day)
        till = (shown.time <= moment).to_numpy()
        changed = features.transform(impressions(shown, changed_from(done, moment, how)))
        np.testing.assert_array_equal(changed[till], whole[till])
        assert (changed[~till] != whole[~till]).any()


def test_one_row_that_is_earlier_by_a_microsecond_changes_the_features():
    shown, done = shown_frame(0), history_frame(0)
    features = ImpressionFeatures(amounts=AMOUNTS)
    whole = features.fit_transform(impressions(shown, done))
    one = shown[(shown.user >= 0) & (shown.time > moments(0))].iloc[0]
    for earlier in (0, 1):
        more = done.iloc[:1].assign(
            user=one.user, item=one["item"], time=one.time - pd.Timedelta(microseconds=earlier)
        )
        told = features.transform(impressions(shown, pd.concat([done, more])))
        assert (told[one.name] != whole[one.name]).any() == bool(earlier)


def test_labels_of_the_impressions_themselves_are_not_looked_at():
    shown, done = shown_frame(0), history_frame(0)
    features = ImpressionFeatures(amounts=AMOUNTS).fit(impressions(shown, done))
    told = features.transform(impressions(shown, done))
    flipped = features.transform(impressions(shown.assign(label=1 - shown.label), done))
    np.testing.assert_array_equal(told, flipped)


def test_a_row_is_told_the_same_alone_as_among_others():
    log = impressions(shown_frame(1), history_frame(1))
    features = ImpressionFeatures(amounts=AMOUNTS)
    whole = features.fit_transform(log)
    for rows in ([3], [140, 7, 7]):
        np.testing.assert_array_equal(features.transform(log.take(rows)), whole[rows])


def test_contents_say_which_items_a_candidate_is_about():
    done = history_frame(2)
    shown = shown_frame(2).assign(item=lambda frame: frame["item"] % 2 + 500)
    contents = pa.table({"candidate": [500, 500, 501, 501], "item": [1, 2, 2, 77]})
    campaigns = Catalogue(pa.table({"item": [500, 501], "hues": [["red", "blue"], ["blue"]]}))
    log = impressions(shown, done, items=campaigns)
    _, told = made(log, contents=contents, related={"hues": "colour"})
    about = {500: [1, 2], 501: [2]}
    colours = catalogue().to_pandas().set_index("item").colour
    hues = {500: ["red", "blue"], 501: ["blue"]}
    for row, one in shown.iterrows():
        mine = done[(done.time < one.time) & (done.user == one.user)]
        known = mine["item"].isin(about[one["item"]])
        assert told["item/rows"][row] == pytest.approx(np.log1p(known.sum()), abs=1e-5)
        alike = mine["item"].map(colours).isin(hues[one["item"]])
        assert told["same/hues/rows"][row] == pytest.approx(np.log1p(alike.sum()), abs=1e-5)


def test_what_is_known_becomes_columns_learned_of_the_first_log_alone():
    shown, done = shown_frame(3), history_frame(3)
    log = impressions(shown, done)
    features, told = made(log)
    assert {"candidate/price", "candidate/colour=red", "candidate/tags=t1"} <= set(told)
    assert {"profile/age", "profile/age=missing", "profile/sex=f", "context/device=desk"} <= set(
        told
    )
    red = shown["item"].mod(3).eq(0).to_numpy()
    np.testing.assert_array_equal(told["candidate/colour=red"], red)
    np.testing.assert_array_equal(told["context/device=missing"], shown.device.isna())
    unseen = by_name(features, features.transform(impressions(shown.assign(device="tv"), done)))
    assert not any(unseen[name].any() for name in told if name.startswith("context/device"))
    few, _ = made(log, known={"candidate": ["price"], "context": [], "profile": []})
    tabled = [name for name in few.names if name.startswith(("candidate", "context", "profile"))]
    assert tabled == ["candidate/price"]


def test_an_impression_without_any_history_is_like_the_longest_ago():
    shown, done = shown_frame(4), history_frame(4)
    _, told = made(impressions(shown, done))
    new = (shown.user < 0).to_numpy()
    assert new.any()
    assert (told["user/rows"][new] == 0).all()
    assert (told["user/last"][new] == told["user/last"].max()).all()
    alone = impressions(shown, done.iloc[:0].astype(done.dtypes))
    _, told = made(alone)
    assert not any(name.startswith(("user", "item", "same")) for name in told)


def test_times_that_are_numbers_have_no_windows_unless_they_are_given():
    def as_numbers(frame):
        return frame.assign(time=(frame.time - moments(0)).dt.days)

    log = impressions(as_numbers(shown_frame(5)), as_numbers(history_frame(5)))
    names = ImpressionFeatures().fit(log).names
    assert not any(name.endswith("D") for name in names)
    assert "user/rows/7" in ImpressionFeatures(windows=[7]).fit(log).names


def test_input_that_cannot_be_used_is_an_error():
    shown, done = shown_frame(6), history_frame(6)
    log = impressions(shown, done)
    with pytest.raises(NotFittedError, match="call fit"):
        ImpressionFeatures().transform(log)
    with pytest.raises(EmptyLogError, match="no history"):
        ImpressionFeatures().fit(BehaviorLog(log.table))
    with pytest.raises(EmptyLogError, match="no impressions"):
        ImpressionFeatures().fit(log.take([]))
    with pytest.raises(ValueError, match="groups"):
        ImpressionFeatures(known={"item": ["price"]})
    with pytest.raises(MissingColumnError, match="candidate"):
        ImpressionFeatures(contents=pa.table({"campaign": [1], "item": [2]}))
    for arguments in ({"amounts": ["spend"]}, {"known": {"profile": ["income"]}}):
        with pytest.raises(MissingColumnError, match=r"spend|income"):
            ImpressionFeatures(**arguments).fit(log)
    with pytest.raises(DataError, match="two catalogues"):
        ImpressionFeatures(related={"tags": "tags"}).fit(
            BehaviorLog(log.table, history=log.history)
        )
    features = ImpressionFeatures().fit(log)
    with pytest.raises(DataError, match="the catalogue, the users"):
        features.transform(BehaviorLog(log.table, history=log.history))
    named = BehaviorLog.from_pandas(shown.assign(item="A"), label="label")
    with pytest.raises(MixedTypeError, match="history holds ids"):
        ImpressionFeatures().fit(BehaviorLog(named.table, history=log.history))
    untimed = BehaviorLog.from_pandas(shown.assign(time=1), label="label")
    with pytest.raises(DataError, match="so none is before another"):
        ImpressionFeatures().fit(BehaviorLog(untimed.table, history=log.history))
    with pytest.raises(DataError, match="do not differ"):
        ImpressionFeatures().fit(log.take([0]))
