"""A shop that changes: seasons, items that arrive, and a day on which tastes turn."""

from typing import Any

import numpy as np
import pyarrow as pa

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.feature_table import Catalogue
from tfrec_llm.data.simulator import FOLLOWER_SHARES, ShopSimulator

_FIRST_DAY = np.datetime64("2024-01-01", "s")
_DAY = 86_400
_YEAR = 365


class ChangingShop:
    """Simulates a shop over months: what is liked, and what there is, changes with the days.

    Customers join over the first half of the time and come back again and again. What they take
    is drawn as in `ShopSimulator`, but every category has a season, items arrive on their own
    days, and on `shift_day` all tastes are dealt anew and another share of the items follows each
    item.

    Args:
        num_users: Number of customers.
        num_items: Number of items at the end.
        days: How long it is simulated.
        visits: Mean number of visits of a customer in 30 days.
        mean_length: Mean number of behaviours of a visit, 1 or more.
        season: How strongly categories' shares swing over a year: at 0.5 by a factor of
            `exp(0.5)` either way.
        new_items: Share of the items that arrive after the first day, on evenly spread days.
        shift_day: Day on which tastes turn; None for never.
        shift: Share of the followers that are others from then on.
        **options: Of `ShopSimulator`: `num_categories`, `num_tastes`, `follow`, `stay`, `seed`.

    Attributes:
        arrival_days: int64 `[num_items]`, the day of every item's arrival, in the order of ids.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> shop = ChangingShop(50, 40, days=60, shift_day=30, seed=0)
        >>> log = shop.simulate()
        >>> bool((shop.arrival_days[log.item.to_numpy() - 1] <= shop.days_of(log)).all())
        True
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        *,
        days: int = _YEAR,
        visits: float = 2.0,
        mean_length: float = 4.0,
        season: float = 0.3,
        new_items: float = 0.3,
        shift_day: int | None = None,
        shift: float = 0.5,
        **options: Any,
    ):
        opened = ShopSimulator(num_users, num_items, **options)
        if days < 1 or visits <= 0 or mean_length < 1 or season < 0:
            raise ValueError(
                f"days, visits and mean_length must be 1 or more (visits above 0) and season 0 or "
                f"more; got {days}, {visits}, {mean_length} and {season}."
            )
        if not 0 <= new_items < 1 or not 0 <= shift <= 1:
            raise ValueError(
                f"new_items must lie in 0..1, below 1, and shift in 0..1; got {new_items} and "
                f"{shift}."
            )
        if shift_day is not None and not 0 < shift_day < days:
            raise ValueError(f"shift_day must lie within the {days} days, got {shift_day}.")
        self.num_users = num_users
        self.days = days
        self.visits = visits
        self.mean_length = mean_length
        self.season = season
        self.shift_day = shift_day
        self._opened = opened
        rng = np.random.default_rng([opened.seed, 2])
        self._phase = rng.random(len(opened._starts) - 1)
        # Of every category one item is there from the first day on.
        can_wait = np.setdiff1d(np.arange(num_items), opened._starts[:-1])
        count = min(len(can_wait), round(new_items * num_items))
        arrival = np.zeros(num_items, np.int64)
        arrival[rng.permutation(can_wait)[:count]] = np.linspace(1, days - 1, count).astype(int)
        self._arrival = arrival
        self.arrival_days = arrival[opened._place_of_id]
        self._later_tastes = rng.dirichlet(np.full(len(self._phase), 0.3), len(opened._tastes))
        self._later_followers = opened._followers.copy()
        turned = rng.random(opened._followers.shape) < shift
        dealt = opened._draw(rng, rng.integers(len(self._phase), size=int(turned.sum())))
        self._later_followers[turned] = dealt

    @property
    def catalogue(self) -> Catalogue:
        """Category and price of every item, of those to come, too."""
        return self._opened.catalogue

    def days_of(self, log: BehaviorLog) -> np.ndarray:
        """Returns the day of every row of a log, int64 from 0."""
        first = _FIRST_DAY.astype("datetime64[us]").astype(np.int64)
        return (log.times() - first) // (_DAY * 1_000_000)

    def simulate(self) -> BehaviorLog:
        """Returns the behaviours of all customers, in order of time; equal calls give equal logs.

        Inside a customer no two times are equal.
        """
        rng = np.random.default_rng([self._opened.seed, 3])
        taste = rng.integers(len(self._later_tastes), size=self.num_users)
        joined = rng.integers(max(1, self.days // 2), size=self.num_users)
        last = np.full(self.num_users, -1, np.int32)
        users, places, seconds = [], [], []
        for day in range(self.days):
            tonight = rng.random(self.num_users) < self.visits / 30
            visitors = np.flatnonzero(tonight & (joined <= day))
            lengths = rng.geometric(1 / self.mean_length, len(visitors))
            # The longest first: those who are still there at a step are then the first ones.
            order = np.argsort(-lengths, kind="stable")
            visitors, lengths = visitors[order], lengths[order]
            moment = day * _DAY + rng.integers(_DAY * 3 // 4, size=len(visitors))
            shop = _Day(self, day)
            for step in range(lengths.max(initial=0)):
                present = visitors[: int(np.count_nonzero(lengths > step))]
                item = shop.next_items(rng, taste[present], last[present])
                last[present] = item
                moment = moment[: len(present)] + 1 + rng.integers(60, size=len(present))
                users.append(present + 1)
                places.append(item)
                seconds.append(moment)
        moments = np.concatenate(seconds) if seconds else np.zeros(0, np.int64)
        order = np.argsort(moments, kind="stable")
        table = pa.table(
            {
                "user": np.concatenate(users)[order] if users else np.zeros(0, np.int64),
                "item": self._opened._id_of_place[np.concatenate(places)[order]]
                if places
                else np.zeros(0, np.int64),
                "time": _FIRST_DAY + moments[order].astype("timedelta64[s]"),
            }
        )
        return BehaviorLog.from_arrow(table, catalogue=self.catalogue)


class _Day:
    """What is liked and what there is on a day."""

    def __init__(self, shop: ChangingShop, day: int):
        opened = shop._opened
        turned = shop.shift_day is not None and day >= shop.shift_day
        self._opened = opened
        self._there = shop._arrival <= day
        self._followers = shop._later_followers if turned else opened._followers
        season = np.exp(shop.season * np.sin(2 * np.pi * (day / _YEAR + shop._phase)))
        tastes = (shop._later_tastes if turned else opened._tastes) * season
        self._tastes = np.cumsum(tastes / tastes.sum(axis=1, keepdims=True), axis=1)
        # Category c's items fill the interval from c to c + 1; those to come have none of it.
        weight = opened._share * self._there
        weight /= np.bincount(opened._category, weight)[opened._category]
        self._ends = np.cumsum(weight)

    def next_items(
        self, rng: np.random.Generator, taste: np.ndarray, last: np.ndarray
    ) -> np.ndarray:
        """Returns the place of the item that each customer takes.

        Args:
            rng: Draws it.
            taste: Integer `[n]`.
            last: int32 `[n]`, the item before; -1 where there is none.
        """
        opened = self._opened
        category = (rng.random(len(taste))[:, None] > self._tastes[taste]).sum(axis=1)
        category = np.minimum(category, self._tastes.shape[1] - 1)
        choice = rng.random(len(taste))
        staying = (last >= 0) & (choice >= opened.follow) & (choice < opened.follow + opened.stay)
        category[staying] = opened._category[last[staying]]
        # Sums of shares are rounded: what lies at the very end of a category is left out.
        drawn = category + rng.random(len(taste)) * (1 - 1e-9)
        item = np.searchsorted(self._ends, drawn, side="right").astype(np.int32)
        following = np.flatnonzero((last >= 0) & (choice < opened.follow))
        which = np.searchsorted(np.cumsum(FOLLOWER_SHARES)[:-1], rng.random(len(following)))
        followers = self._followers[last[following], which]
        # One that is yet to come is not followed.
        there = self._there[followers]
        item[following[there]] = followers[there]
        return item
