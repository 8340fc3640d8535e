import numpy as np
import pandas as pd
import pytest

from tfrec_llm.data import BehaviorLog, UserTable, sample_negatives
from tfrec_llm.errors import DataError, EmptyLogError, MissingColumnError


def impressions(labels, **options):
    frame = pd.DataFrame({"row": np.arange(len(labels)), "label": labels})
    frame["user"], frame["item"] = frame["row"] % 7, frame["row"] % 5
    return BehaviorLog.from_pandas(frame, time="row", label="label", context=["row"], **options)


@pytest.fixture
def log():
    users = UserTable.from_pandas(pd.DataFrame({"user": range(7), "age": 30}))
    labels = np.random.default_rng(0).random(2000) < 0.1
    past = impressions([1, 0, 1])
    shown = impressions(labels, users=users)
    return shown.take(np.arange(2000), history=past)


def rows_of(log):
    return log.table["row"].to_numpy()


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.33, 1.0])
def test_all_positives_and_the_share_of_negatives_are_left_in_order(log, rate):
    labels = log.table["label"].to_numpy()
    sample = sample_negatives(log, rate)
    rows = rows_of(sample.log)
    assert (np.diff(rows) > 0).all()
    assert labels[rows].sum() == labels.sum()
    negatives = (labels == 0).sum()
    assert (labels[rows] == 0).sum() == round(rate * negatives)
    assert sample.rate == round(rate * negatives) / negatives


def test_what_belongs_to_the_log_stays_with_it(log):
    sample = sample_negatives(log, 0.2)
    assert sample.log.users is log.users
    assert sample.log.history is log.history
    assert sample.log.table.column_names == log.table.column_names


def test_a_sample_repeats_with_its_seed_and_lies_within_a_larger_one(log):
    few, many = (rows_of(sample_negatives(log, rate, seed=3).log) for rate in (0.1, 0.4))
    assert rows_of(sample_negatives(log, 0.1, seed=3).log).tolist() == few.tolist()
    assert set(few) < set(many)
    assert rows_of(sample_negatives(log, 0.1, seed=4).log).tolist() != few.tolist()


def test_negatives_are_drawn_evenly():
    log = impressions([0] * 50 + [1])
    drawn = np.zeros(51)
    for seed in range(400):
        drawn[rows_of(sample_negatives(log, 0.2, seed=seed).log)] += 1
    assert drawn[50] == 400
    # 80 on average, with a standard deviation of 8.
    assert 50 < drawn[:50].min() < 80 < drawn[:50].max() < 110


def test_one_negative_stays_at_least():
    sample = sample_negatives(impressions([0, 0, 0, 1]), 0.01)
    assert (len(sample.log), sample.rate) == (2, 1 / 3)


def test_what_cannot_be_sampled_is_refused(log):
    for rate in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="rate must be above 0 and at most 1"):
            sample_negatives(log, rate)
    with pytest.raises(DataError, match=r"All 3 labels are positive.*what was shown and not"):
        sample_negatives(impressions([1, 1, 1]), 0.5)
    with pytest.raises(DataError, match="1 of 2 labels are NaN"):
        sample_negatives(impressions([1, None]), 0.5)
    with pytest.raises(DataError, match=r"must lie in 0\.\.1.*first 5"):
        sample_negatives(impressions([0, 5]), 0.5)
    with pytest.raises(MissingColumnError, match="label"):
        sample_negatives(
            BehaviorLog.from_pandas(pd.DataFrame({"user": [1], "item": [2]}), time=None), 0.5
        )
    with pytest.raises(EmptyLogError, match="no rows"):
        sample_negatives(log.take([]), 0.5)
    assert len(sample_negatives(impressions([0, 0]), 0.5).log) == 1
