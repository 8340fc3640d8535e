import time

import numpy as np
import pytest

from tfrec_llm.data.simulator import ShopSimulator
from tfrec_llm.data.splits import leave_last_out, random_split, temporal_split
from tfrec_llm.errors import UnknownItemError


@pytest.fixture(scope="module")
def shop():
    return ShopSimulator(20_000, 30, num_categories=5, num_tastes=3, mean_length=6, seed=1)


@pytest.fixture(scope="module")
def log(shop):
    return shop.simulate()


def histories_of(log):
    frame = log.history.to_pandas().sort_values("time").groupby("user").item.agg(list)
    return [frame[user] for user in log.user.to_pylist()]


def test_a_shop_is_of_the_size_asked_for(log):
    assert log.num_users == 20_000
    assert log.num_items == 30
    lengths = np.bincount(log.user_codes()[0])
    assert lengths.min() == 3
    assert lengths.mean() == pytest.approx(6, rel=0.03)
    assert (np.diff(log.times()) >= 0).all()
    assert not log.to_pandas().duplicated(["user", "time"]).any()
    assert log.catalogue.lookup(log.item.unique())["category"].null_count == 0


def test_a_seed_repeats_the_shop_and_another_changes_it(log):
    settings = {"num_categories": 5, "num_tastes": 3, "mean_length": 6}
    assert ShopSimulator(20_000, 30, seed=1, **settings).simulate().table.equals(log.table)
    assert not ShopSimulator(20_000, 30, seed=2, **settings).simulate().table.equals(log.table)


@pytest.mark.parametrize("history", [[], [7], [7, 12, 3], [1] * 30])
def test_probabilities_sum_to_one_and_leave_nothing_out(shop, history):
    probabilities = shop.next_probabilities(history)
    assert probabilities.shape == (30,)
    assert probabilities.sum() == pytest.approx(1)
    assert (probabilities > 0).all()


def test_items_come_as_often_as_their_probabilities_say(shop, log):
    test = leave_last_out(log).test
    expected = sum(shop.next_probabilities(history) for history in histories_of(test)[:5_000])
    seen = np.bincount(test.item.to_numpy()[:5_000] - 1, minlength=30)
    deviation = (seen - expected) / np.sqrt(expected)
    assert np.abs(deviation).max() < 4
    assert (deviation**2).sum() < 60  # chi-squared of 30 items; above 60 once in a thousand


def test_first_items_come_as_often_as_an_empty_history_says(shop, log):
    first = log.to_pandas().drop_duplicates("user").item
    expected = shop.next_probabilities([]) * len(first)
    seen = np.bincount(first - 1, minlength=30)
    assert np.abs((seen - expected) / np.sqrt(expected)).max() < 4


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize(
    ("metric", "gain"),
    [
        ("hr", lambda rank: 1.0),
        ("ndcg", lambda rank: 1 / np.log2(rank + 1)),
        ("mrr", lambda rank: 1 / rank),
    ],
)
def test_a_model_that_knows_the_shop_reaches_the_best_score(shop, log, metric, gain, filter_seen):
    test = leave_last_out(log).test
    reached = []
    rows = slice(0, 4_000)
    items = test.item.to_numpy()[rows]
    for history, target in zip(histories_of(test)[rows], items, strict=True):
        scores = shop.next_probabilities(history)
        if filter_seen:
            scores[np.array(history) - 1] = 0
        rank = 1 + (scores > scores[target - 1]).sum()
        found = rank <= 5 and scores[target - 1] > 0
        reached.append(gain(rank) if found else 0.0)
    best = shop.best_score(test, k=5, metric=metric, filter_seen=filter_seen)
    error = np.std(reached) / np.sqrt(len(reached))
    assert abs(np.mean(reached) - best) < 4 * error
    assert shop.best_score(test, k=10, metric=metric, filter_seen=filter_seen) > best


def test_knowing_the_taste_is_worth_something(shop, log):
    last_item_only = shop.next_probabilities([7])
    whole_history = shop.next_probabilities([3, 3, 3, 3, 3, 3, 7])
    assert np.abs(last_item_only - whole_history).max() > 0.01


def test_the_best_score_of_new_users_and_of_few_users(shop, log):
    split = random_split(log, valid=0.1, test=0.1)
    assert 0.2 < shop.best_score(split.test, k=5, metric="hr") < 1
    lonely = random_split(log, valid=0.1, test=0.1).test
    lonely.history = lonely.history.take([])
    empty = shop.next_probabilities([])
    best = np.sort(empty)[-5:].sum()
    assert shop.best_score(lonely, k=5, metric="hr") == pytest.approx(best)
    assert shop.best_score(lonely, k=100, metric="hr") == pytest.approx(1)


def test_what_has_no_best_score_is_an_error(shop, log):
    with pytest.raises(ValueError, match="several"):
        shop.best_score(temporal_split(log).test)
    test = leave_last_out(log).test
    with pytest.raises(ValueError, match="metric must be"):
        shop.best_score(test, metric="accuracy")
    with pytest.raises(ValueError, match="no history"):
        shop.best_score(log.take(np.arange(1)))
    with pytest.raises(UnknownItemError):
        shop.next_probabilities([31])


@pytest.mark.parametrize(
    "settings",
    [
        {"num_users": 0},
        {"num_items": 3, "num_categories": 4},
        {"mean_length": 2},
        {"follow": 0.8, "stay": 0.3},
        {"follow": -0.1},
    ],
)
def test_a_shop_that_cannot_be_is_an_error(settings):
    with pytest.raises(ValueError, match=r"small|least|exceed"):
        ShopSimulator(**{"num_users": 5, "num_items": 10, **settings})


def test_the_smallest_shop_works():
    shop = ShopSimulator(1, 1, mean_length=3)
    assert shop.simulate().item.to_pylist() == [1, 1, 1]
    assert shop.next_probabilities([1]).tolist() == [1.0]


def test_popularity_falls_as_in_zipfs_law_where_customers_only_browse():
    shop = ShopSimulator(50_000, 1_000, num_categories=1, follow=0.0, stay=0.0, seed=3)
    counts = np.sort(np.bincount(shop.simulate().item.to_numpy()))[::-1]
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    assert counts[9] / counts[99] == pytest.approx(10, rel=0.15)


def test_a_million_behaviours_take_seconds():
    started = time.perf_counter()
    log = ShopSimulator(100_000, 100_000, mean_length=10).simulate()
    assert len(log) == pytest.approx(1_000_000, rel=0.02)
    assert time.perf_counter() - started < 10
