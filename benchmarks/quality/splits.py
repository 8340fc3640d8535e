"""The data sets of the benchmark, each in its train, validation and test."""

import numpy as np
import pyarrow.compute as pc

from tfrec_llm.data import (
    BehaviorLog,
    DropNulls,
    ShopSimulator,
    Split,
    clean,
    leave_last_out,
    load,
    temporal_split,
)


def split_of(name: str) -> Split:
    """Returns the split that `settings.DATA` tells of in words."""
    if name == "simulated":
        return leave_last_out(ShopSimulator(300, 60).simulate())
    if name == "online_retail":
        return next_basket_split(load(name), valid_from="2011-10-01", test_from="2011-11-01")
    return leave_last_out(load(name))


def next_basket_split(log: BehaviorLog, *, valid_from: str, test_from: str) -> Split:
    """Holds out the next basket that a user bought after each of two moments.

    Only purchases count. A user who has not bought before has no history to go by, and is left
    out; what is bought after the next basket is, too.
    """
    purchases = log.take(pc.equal(log.column("behavior"), "purchase").to_numpy())
    purchases = clean(purchases, [DropNulls()]).log
    split = temporal_split(purchases, valid_from=valid_from, test_from=test_from)
    return Split(split.train, next_baskets(split.valid), next_baskets(split.test))


def next_baskets(part: BehaviorLog) -> BehaviorLog:
    """Keeps the first basket, lines of one moment, of every user who has a history."""
    codes, users = part.user_codes()
    times = part.times()
    first = np.full(len(users), np.iinfo(np.int64).max)
    np.minimum.at(first, codes, times)
    assert part.history is not None
    known = pc.is_in(users, value_set=pc.unique(part.history.user)).to_numpy(zero_copy_only=False)
    return part.take((times == first[codes]) & known[codes])
