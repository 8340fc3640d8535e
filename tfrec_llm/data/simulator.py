"""A shop whose customers' preferences are known, so that the best reachable score is."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.feature_table import Catalogue
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary

FOLLOWER_SHARES = np.array([0.6, 0.3, 0.1])
_SHORTEST = 3  # so that every user can give a validation and a test item
_FIRST_DAY = np.datetime64("2024-01-01", "s")
_SECONDS = 90 * 86_400

# What each place of a ranking of k is worth.
_GAINS: dict[str, Callable[[int], np.ndarray]] = {
    "hr": np.ones,
    "ndcg": lambda k: 1 / np.log2(np.arange(2, k + 2)),
    "mrr": lambda k: 1 / np.arange(1, k + 1),
}


class ShopSimulator:
    """Simulates what the customers of a shop do, by a process of which all is known.

    Every customer has one of a few tastes, a distribution over categories, which nobody is
    told. After an item a customer takes one of the three items that `follow` it, or stays in its
    category, or turns to a category of the own taste; inside a category items are taken by
    popularity, which falls as in Zipf's law. A model has to learn the followers, the categories,
    the popularity and, from a history, the taste.

    Args:
        num_users: Number of customers; their ids are 1, 2, ...
        num_items: Number of items; their ids are 1, 2, ..., in no order of popularity.
        mean_length: Mean number of behaviours of a customer; 3 is the least.
        num_categories: Number of categories; about the square root of `num_items`, at most 100,
            by default.
        num_tastes: Number of tastes.
        follow: Probability that the next item is one of the followers.
        stay: Probability that the next item is of the same category.
        seed: Settles the shop and the behaviours.

    Raises:
        ValueError: If a number is too small, or the probabilities exceed 1.

    Example:
        >>> shop = ShopSimulator(num_users=1000, num_items=50, seed=0)
        >>> log = shop.simulate()
        >>> log.num_users, log.num_items
        (1000, 50)
        >>> shop.next_probabilities([7, 12]).sum().round(6)
        np.float64(1.0)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        *,
        mean_length: float = 10.0,
        num_categories: int | None = None,
        num_tastes: int = 4,
        follow: float = 0.4,
        stay: float = 0.3,
        seed: int = 0,
    ):
        if num_categories is None:
            num_categories = min(100, max(1, round(num_items**0.5)))
        if min(num_users, num_tastes, num_categories) < 1 or num_items < num_categories:
            raise ValueError(
                f"A shop of {num_users} users, {num_items} items, {num_categories} categories "
                f"and {num_tastes} tastes is too small; every category needs an item."
            )
        if mean_length < _SHORTEST:
            raise ValueError(f"mean_length must be at least {_SHORTEST}, got {mean_length}.")
        if min(follow, stay) < 0 or follow + stay > 1:
            raise ValueError(f"follow {follow} and stay {stay} must not exceed 1 together.")
        self.num_users = num_users
        self.num_items = num_items
        self.mean_length = mean_length
        self.follow = follow
        self.stay = stay
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        # Items stand sorted by category, and by popularity inside it; ids are dealt at random.
        self._category = np.sort(np.arange(num_items) % num_categories).astype(np.int32)
        self._starts = np.searchsorted(self._category, np.arange(num_categories + 1))
        rank = np.arange(num_items) - self._starts[self._category]
        weight = 1.0 / (rank + 1.0)
        self._share = weight / np.bincount(self._category, weight)[self._category]
        # Category c's items fill the interval from c to c + 1.
        before = np.cumsum(self._share) - self._category
        self._cumulative = self._category + before
        self._place_of_id = rng.permutation(num_items).astype(np.int32)
        self._id_of_place = np.empty(num_items, np.int64)
        self._id_of_place[self._place_of_id] = np.arange(1, num_items + 1)
        self._tastes = rng.dirichlet(np.full(num_categories, 0.3), num_tastes)
        self._followers = self._draw(
            rng, rng.integers(num_categories, size=num_items * len(FOLLOWER_SHARES))
        ).reshape(num_items, -1)
        self._prices = np.round(np.exp(rng.normal(3.0, 0.6, num_items)), 2)

    @property
    def catalogue(self) -> Catalogue:
        """Category and price of every item."""
        category = self._category[self._place_of_id]
        names = pa.array([f"category {number + 1}" for number in range(len(self._starts) - 1)])
        return Catalogue(
            pa.table(
                {
                    "item": np.arange(1, self.num_items + 1),
                    "category": names.take(pa.array(category)),
                    "price": self._prices,
                }
            )
        )

    def simulate(self) -> BehaviorLog:
        """Returns the behaviours of all customers over 90 days, in order of time.

        Equal calls give equal logs. Inside a customer no two times are equal.
        """
        rng = np.random.default_rng([self.seed, 1])
        geometric = rng.geometric(1 / (self.mean_length - _SHORTEST + 1), self.num_users)
        # The longest first: those who are still there at a step are then the first ones.
        lengths = np.sort(geometric + _SHORTEST - 1)[::-1]
        user_ids = rng.permutation(self.num_users) + 1
        taste = rng.integers(len(self._tastes), size=self.num_users)
        num_tastes, num_categories = self._tastes.shape
        bounds = (np.cumsum(self._tastes, axis=1) + np.arange(num_tastes)[:, None]).ravel()
        present_at = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left")
        offsets = np.cumsum(lengths) - lengths
        places = np.empty(lengths.sum(), np.int32)
        seconds = np.empty(len(places), np.int64)
        now = rng.integers(_SECONDS, size=self.num_users)
        last = np.zeros(self.num_users, np.int32)
        for step, present in enumerate(present_at):
            found = np.searchsorted(bounds, taste[:present] + rng.random(present), side="right")
            category = np.minimum(found - taste[:present] * num_categories, num_categories - 1)
            if step:
                last, now = last[:present], now[:present]
                choice = rng.random(present)
                staying = (choice >= self.follow) & (choice < self.follow + self.stay)
                category[staying] = self._category[last[staying]]
                following = np.flatnonzero(choice < self.follow)
                now = now + 1 + rng.exponential(40.0, present).astype(np.int64)
            item = self._draw(rng, category)
            if step:
                which = np.searchsorted(np.cumsum(FOLLOWER_SHARES)[:-1], rng.random(len(following)))
                item[following] = self._followers[last[following], which]
            places[offsets[:present] + step] = item
            seconds[offsets[:present] + step] = now
            last = item
        order = np.argsort(seconds, kind="stable")
        table = pa.table(
            {
                "user": np.repeat(user_ids, lengths)[order],
                "item": self._id_of_place[places[order]],
                "time": (_FIRST_DAY + seconds[order].astype("timedelta64[s]")),
            }
        )
        return BehaviorLog.from_arrow(table, catalogue=self.catalogue)

    def next_probabilities(self, history: Sequence[Any]) -> np.ndarray:
        """Returns the probability of every item to be the next one after a history.

        Args:
            history: Item ids, oldest first; may be empty.

        Returns:
            float64 `[num_items]`; place i is that of item i + 1.

        Raises:
            UnknownItemError: If an id is not of this shop.
        """
        return self._probabilities(UserSequences.from_histories([history], self._vocabulary))[0]

    def best_score(
        self, log: BehaviorLog, *, k: int = 10, metric: str = "ndcg", filter_seen: bool = True
    ) -> float:
        """Returns the score that a model of perfect knowledge is expected to reach.

        Args:
            log: A held-out part with its history, of one row a user: `split.test` of
                `leave_last_out` or `random_split`. Only its users count, not their items.
            k: Length of the ranking.
            metric: "hr", "ndcg" or "mrr".
            filter_seen: Whether items of the history are removed from the ranking.

        Returns:
            The mean over users. What a model reaches on one draw scatters around it.

        Raises:
            ValueError: If a user has several rows, or there is no such metric.
        """
        if metric not in _GAINS:
            raise ValueError(f'metric must be "hr", "ndcg" or "mrr", not {metric!r}.')
        _, users = log.user_codes()
        if len(users) < len(log):
            raise ValueError("Expected one held-out row a user; a user here has several.")
        if log.history is None:
            raise ValueError("The log has no history; take a held-out part of a split.")
        k = min(k, self.num_items)
        known = UserSequences.from_log(log.history, self._vocabulary, on_unknown="raise")
        sequences = known.select(users, on_unknown="empty")
        chunk = max(1, 4_000_000 // self.num_items)
        total = 0.0
        for first in range(0, len(sequences), chunk):
            rows = sequences.take(np.arange(first, min(first + chunk, len(sequences))))
            probabilities = self._probabilities(rows)
            if filter_seen:
                of_row = np.repeat(np.arange(len(rows)), rows.lengths)
                probabilities[of_row, rows.items - NUM_RESERVED] = 0.0
            best = -np.sort(np.partition(-probabilities, k - 1, axis=1)[:, :k], axis=1)
            total += float((best @ _GAINS[metric](k)).sum())
        return total / len(sequences)

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        """All items; the index of an item is its id plus 2."""
        return Vocabulary(np.arange(1, self.num_items + 1))

    def _draw(self, rng: np.random.Generator, category: np.ndarray) -> np.ndarray:
        """Returns the place of an item of every category given, drawn by popularity."""
        places = np.searchsorted(self._cumulative, category + rng.random(len(category)), "right")
        return np.clip(places, self._starts[category], self._starts[category + 1] - 1).astype(
            np.int32
        )

    def _probabilities(self, sequences: UserSequences) -> np.ndarray:
        """Returns float64 [n, num_items] in the order of the ids."""
        rows = np.arange(len(sequences))
        places = self._place_of_id[sequences.items - NUM_RESERVED]
        of_row = np.repeat(rows, sequences.lengths)
        # How likely each taste makes each step of the history, given the step before.
        likelihood = self._tastes[:, self._category[places]].T * self._share[places, None]
        starts = sequences.offsets[:-1][sequences.lengths > 0]
        later = np.ones(len(places), bool)
        later[starts] = False
        later = np.flatnonzero(later)
        last, now = places[later - 1], places[later]
        followed = (self._followers[last] == now[:, None]) @ FOLLOWER_SHARES
        stayed = np.where(self._category[last] == self._category[now], self._share[now], 0.0)
        likelihood[later] *= 1 - self.follow - self.stay
        likelihood[later] += (self.follow * followed + self.stay * stayed)[:, None]
        likelihood = np.maximum(likelihood, 1e-300)  # a history that this shop cannot give
        log_posterior = np.stack(
            [np.bincount(of_row, np.log(one), len(rows)) for one in likelihood.T], axis=1
        )
        posterior = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        # Without a last item, all comes from the taste.
        probabilities = (posterior @ self._tastes)[:, self._category] * self._share
        has_last = np.flatnonzero(sequences.lengths)
        last = places[sequences.offsets[1:][has_last] - 1]
        probabilities[has_last] *= 1 - self.follow - self.stay
        same = self._category[last][:, None] == self._category
        probabilities[has_last] += self.stay * same * self._share
        for column, share in enumerate(FOLLOWER_SHARES):
            probabilities[has_last, self._followers[last, column]] += self.follow * share
        return probabilities[:, self._place_of_id]
