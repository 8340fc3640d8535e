import itertools

import numpy as np
import pytest

from tfrec_llm.metrics import RANKING_METRICS, average_precision, hit_rate, mrr, ndcg

OFFSETS = np.array([0, 1, 4, 6, 7])
RANKS = np.array([3, 1, 5, 12, np.inf, 2, np.inf])


def one_user(name, ranks, k):
    """The metrics from their definitions, one place of the list after another."""
    relevant = [place in ranks for place in range(1, k + 1)]
    best = [place < len(ranks) for place in range(k)]
    gain = [1 / np.log2(place + 2) for place in range(k)]
    precisions = [sum(relevant[: p + 1]) / (p + 1) for p in range(k) if relevant[p]]
    return {
        "hr": float(any(relevant)),
        "ndcg": np.dot(relevant, gain) / np.dot(best, gain),
        "mrr": 1 / (relevant.index(True) + 1) if any(relevant) else 0.0,
        "recall": sum(relevant) / len(ranks),
        "precision": sum(relevant) / k,
        "map": sum(precisions) / min(len(ranks), k),
    }[name]


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("name", RANKING_METRICS)
def test_metrics_of_users_with_several_targets_follow_their_definitions(name, k):
    expected = [
        one_user(name, RANKS[begin:end].tolist(), k) for begin, end in itertools.pairwise(OFFSETS)
    ]
    np.testing.assert_allclose(RANKING_METRICS[name](RANKS, k, offsets=OFFSETS), expected)


@pytest.mark.parametrize("name", RANKING_METRICS)
def test_one_target_a_user_is_the_same_with_and_without_offsets(name):
    metric = RANKING_METRICS[name]
    offsets = np.arange(len(RANKS) + 1)
    np.testing.assert_allclose(metric(RANKS, 5), metric(RANKS, 5, offsets=offsets))


def test_metrics_do_not_depend_on_the_order_of_a_users_targets():
    for metric in RANKING_METRICS.values():
        forward = metric(np.array([2, 7, np.inf]), 10, offsets=np.array([0, 3]))
        backward = metric(np.array([np.inf, 7, 2]), 10, offsets=np.array([0, 3]))
        np.testing.assert_allclose(forward, backward)


def test_an_unreachable_target_stays_in_the_denominator():
    ranks, offsets = np.array([1, np.inf]), np.array([0, 2])
    assert ndcg(ranks, 10, offsets=offsets)[0] < 1
    assert average_precision(ranks, 10, offsets=offsets)[0] == 0.5
    assert hit_rate(np.array([np.inf, 1.0]), 10).tolist() == [0, 1]


def test_no_users_have_no_metrics():
    for metric in RANKING_METRICS.values():
        assert metric(np.zeros(0), 10).shape == (0,)
        assert metric(np.zeros(0), 10, offsets=np.zeros(1, int)).shape == (0,)


@pytest.mark.parametrize(
    ("ranks", "k", "offsets"),
    [([1], 0, None), ([0], 5, None), ([np.nan], 5, None), ([1, 2], 5, [0, 2, 2]), ([1], 5, [0, 2])],
)
def test_ranks_that_cannot_be_are_refused(ranks, k, offsets):
    with pytest.raises(ValueError, match=r"k must|start at 1|must rise"):
        mrr(np.array(ranks), k, offsets=None if offsets is None else np.array(offsets))
