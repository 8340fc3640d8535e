import math

import numpy as np
import pyarrow as pa
import pytest

from tfrec_llm.errors import DataError, NullValueError
from tfrec_llm.metrics import auc, grouped_auc


def slowly(labels, probabilities, users, weights):
    """A user after another, a pair after another."""
    total = shown = 0.0
    counted, left_out = [], []
    for user in sorted(set(users)):
        rows = [row for row in range(len(users)) if users[row] == user and weights[row]]
        right = pairs = 0.0
        for one in rows:
            for other in rows:
                if labels[one] and not labels[other]:
                    weight = weights[one] * weights[other]
                    ahead = probabilities[one] - probabilities[other]
                    right += weight * (1.0 if ahead > 0 else 0.5 if ahead == 0 else 0.0)
                    pairs += weight
        if pairs:
            impressions = sum(weights[row] for row in rows)
            total += impressions * right / pairs
            shown += impressions
            counted.append(user)
        elif rows:
            left_out.append(user)
    return total / shown, len(counted), len(left_out), shown / sum(weights)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_grouped_auc_is_that_of_a_plain_loop(seed, weighted):
    rng = np.random.default_rng(seed)
    users, probabilities = rng.integers(0, 60, 300), rng.integers(0, 9, 300) / 8
    labels = (rng.random(300) < 0.2).astype(float)
    weights = rng.integers(0, 3, 300) * 0.7 if weighted else np.ones(300)
    found = grouped_auc(labels, probabilities, users, weights=weights if weighted else None)
    value, counted, left_out, share = slowly(labels, probabilities, users, weights)
    assert left_out > 3 < counted
    assert (found.users, found.users_left_out) == (counted, left_out)
    assert (found.value, found.share) == pytest.approx((value, share), rel=1e-12)


def test_one_user_has_the_plain_auc_and_names_make_no_difference():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.random(50) < 0.5, rng.random(50)
    alone = grouped_auc(labels, probabilities, ["u"] * 50)
    assert alone.value == pytest.approx(auc(labels, probabilities))
    users = rng.integers(0, 5, 50)
    column = pa.chunked_array([[f"user {user}"] for user in users])
    assert grouped_auc(labels, probabilities, column) == grouped_auc(labels, probabilities, users)


def test_telling_busy_users_from_others_gains_nothing_within_users():
    users = np.repeat([0, 1], 100)
    labels = np.r_[np.arange(100) < 90, np.arange(100) < 10]
    by_user = np.where(users == 0, 0.9, 0.1)
    assert auc(labels, by_user) > 0.85
    assert grouped_auc(labels, by_user, users).value == 0.5


def test_users_of_one_class_alone_give_no_number():
    found = grouped_auc([1, 1, 0], [0.1, 0.2, 0.3], [1, 1, 2])
    assert math.isnan(found.value)
    assert (found.users, found.users_left_out, found.share) == (0, 2, 0.0)


def test_pairs_without_a_user_are_refused():
    with pytest.raises(NullValueError, match="1 of 3 pairs have no user"):
        grouped_auc([1, 0, 1], [0.1, 0.2, 0.3], ["u", None, "v"])
    with pytest.raises(DataError, match="there are 2 for 3 labels"):
        grouped_auc([1, 0, 1], [0.1, 0.2, 0.3], ["u", "v"])
    with pytest.raises(DataError, match="1 of 2 probabilities are NaN"):
        grouped_auc([1, 0], [0.1, np.nan], ["u", "v"])
    with pytest.raises(DataError, match="no labels"):
        grouped_auc([], [], [])
