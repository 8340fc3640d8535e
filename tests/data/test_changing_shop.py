import itertools

import numpy as np
import pytest

from tfrec_llm.data import ChangingShop

SETTINGS = {"days": 120, "visits": 6.0, "new_items": 0.4, "shift_day": 80, "seed": 3}


@pytest.fixture(scope="module")
def shop():
    return ChangingShop(400, 60, **SETTINGS)


@pytest.fixture(scope="module")
def log(shop):
    return shop.simulate()


def shares(log, rows):
    """Shares of the categories among rows of a log."""
    taken = log.take(rows)
    values = np.array(log.catalogue.lookup(taken.item)["category"].to_pylist())
    names = sorted(set(log.catalogue.table["category"].to_pylist()))
    return np.array([np.mean(values == name) for name in names])


def test_a_seed_repeats_the_shop_and_customers_come_back(shop, log):
    assert ChangingShop(400, 60, **SETTINGS).simulate().table.equals(log.table)
    assert log.num_users > 350
    assert (np.diff(log.times()) >= 0).all()
    assert not log.to_pandas().duplicated(["user", "time"]).any()
    days = log.to_pandas().assign(day=shop.days_of(log)).groupby("user")["day"].nunique()
    assert days.mean() > 5


def test_items_are_taken_from_the_day_of_their_arrival_on(shop, log):
    days = shop.days_of(log)
    arrival = shop.arrival_days[log.item.to_numpy() - 1]
    assert (arrival <= days).all()
    assert (shop.arrival_days > 0).sum() == 24
    late = shop.arrival_days > 60
    assert late.any()
    assert np.isin(np.flatnonzero(late) + 1, log.item.to_numpy()).mean() > 0.8


def test_tastes_turn_on_the_day_of_the_shift_and_swing_slowly_before(shop, log):
    days = shop.days_of(log)
    parts = [shares(log, (days >= first) & (days < first + 20)) for first in (40, 60, 80, 100)]
    moved = [np.abs(after - before).sum() for before, after in itertools.pairwise(parts)]
    assert moved[1] > 3 * max(moved[0], moved[2])


def test_seasons_make_categories_rise_and_fall():
    calm = ChangingShop(300, 30, days=365, visits=6, season=0.0, new_items=0.0, seed=1)
    lively = ChangingShop(300, 30, days=365, visits=6, season=1.0, new_items=0.0, seed=1)

    def swing(shop):
        log = shop.simulate()
        months = shop.days_of(log) // 61
        # From the time on at which all have joined.
        return np.ptp([shares(log, months == month) for month in range(3, 6)], axis=0).sum()

    assert swing(lively) > 2 * swing(calm)


@pytest.mark.parametrize(
    "settings",
    [
        {"days": 0},
        {"visits": 0},
        {"new_items": 1.0},
        {"shift_day": 500},
        {"shift": 2},
        {"season": -1},
    ],
)
def test_a_shop_that_cannot_change_so_is_an_error(settings):
    with pytest.raises(ValueError, match="must"):
        ChangingShop(5, 10, **settings)


def test_the_smallest_shop_works():
    assert len(ChangingShop(1, 1, days=1, visits=0.001, new_items=0.0).simulate()) == 0
