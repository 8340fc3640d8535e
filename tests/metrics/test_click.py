import math

import numpy as np
import pyarrow as pa
import pytest

from tfrec_llm.errors import DataError
from tfrec_llm.metrics import accuracy, auc, log_loss, normalized_entropy

METRICS = [auc, accuracy, log_loss, normalized_entropy]


@pytest.fixture
def clicks():
    """Labels, probabilities with ties, whole weights."""
    rng = np.random.default_rng(0)
    probabilities = rng.integers(1, 20, 200) / 20
    return rng.random(200) < probabilities, probabilities, rng.integers(0, 4, 200)


def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_halves(clicks):
    labels, probabilities, weights = clicks
    pairs = probabilities[labels][:, None] - probabilities[~labels][None, :]
    right = (pairs > 0) + 0.5 * (pairs == 0)
    assert auc(labels, probabilities) == pytest.approx(np.mean(right))
    both = weights[labels][:, None] * weights[~labels][None, :]
    assert auc(labels, probabilities, weights=weights) == pytest.approx(
        (right * both).sum() / both.sum()
    )


def test_auc_and_log_loss_are_those_of_scikit_learn(clicks):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, probabilities, weights = clicks
    for dtype in ("float32", "float64"):
        given = probabilities.astype(dtype)
        given[:3] = [0.0, 1.0, 1e-9]
        for ours, theirs in ((auc, sklearn.roc_auc_score), (log_loss, sklearn.log_loss)):
            assert ours(labels, given) == pytest.approx(theirs(labels, given), rel=1e-6)
            weighted = theirs(labels, given, sample_weight=weights)
            assert ours(labels, given, weights=weights) == pytest.approx(weighted, rel=1e-6)


def test_a_pair_of_weight_two_counts_as_two_pairs(clicks):
    labels, probabilities, weights = clicks
    twice = np.repeat(np.arange(200), weights)
    for metric in (auc, log_loss, normalized_entropy):
        whole = metric(labels[twice], probabilities[twice])
        assert metric(labels, probabilities, weights=weights) == pytest.approx(whole, rel=1e-12)


def test_auc_takes_scores_of_any_range_and_depends_on_their_order_only(clicks):
    labels, probabilities, _ = clicks
    logits = np.log(probabilities) - np.log1p(-probabilities)
    assert auc(labels, logits) == auc(labels, probabilities)
    assert auc([0, 1, 1], [-np.inf, 0, np.inf]) == 1.0


def test_auc_of_many_pairs_is_exact():
    scores = np.random.default_rng(0).permutation(300_000)
    # The ranks of the clicks are 0, 2, 4, ...: each is above as many others as stand before it.
    assert auc(scores % 2 == 0, scores) == (150_000 - 1) / 2 / 150_000


def test_a_single_class_has_no_auc_and_no_normalised_entropy():
    for labels in (np.ones(3), np.zeros(3)):
        assert math.isnan(auc(labels, [0.1, 0.2, 0.3]))
        assert math.isnan(normalized_entropy(labels, [0.1, 0.2, 0.3]))
        assert log_loss(labels, [0.5, 0.5, 0.5]) == pytest.approx(math.log(2))
    assert math.isnan(auc([1, 0], [0.1, 0.2], weights=[1, 0]))


def test_accuracy_counts_probabilities_on_the_right_side_of_a_half():
    assert accuracy(np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.5, 0.6])) == 0.5


def test_log_loss_of_a_sure_error_is_large_and_finite():
    assert log_loss([1.0], np.zeros(1, "float32")) == pytest.approx(-math.log(2.0**-23))
    assert log_loss([1.0], np.zeros(1)) == pytest.approx(-math.log(2.0**-52))


def test_the_base_rate_has_a_normalised_entropy_of_one_whatever_it_is():
    for clicks in (1, 30, 99):
        labels = np.arange(100) < clicks
        assert normalized_entropy(labels, np.full(100, clicks / 100)) == pytest.approx(1)
        assert normalized_entropy(labels, np.where(labels, 0.999, 0.001)) < 1
        assert normalized_entropy(labels, np.where(labels, 0.001, 0.999)) > 1


def test_labels_may_be_shares_and_come_as_columns():
    halves = log_loss([0.25, 1.0], [0.5, 0.75])
    assert halves == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    column = pa.chunked_array([[1.0], [0.0]], pa.float32())
    assert log_loss(column, [[0.5], [0.5]]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], [], "no labels"),
        ([0, np.nan], [0.1, 0.2], "1 of 2 labels are NaN"),
        ([0, 3], [0.1, 0.2], "must lie in 0..1.*1 of 2 do not, first 3"),
        ([0, 1], [0.1, np.nan], "1 of 2 probabilities are NaN"),
        ([0, 1], [0.1], r"one a pair.*\(1,\) for 2 labels"),
        ([[0, 1]], [[0.1, 0.2]], r"one a pair, \[rows\], got the shape \(1, 2\)"),
        (["yes"], [0.1], "labels must be numbers"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, labels, probabilities, message):
    with pytest.raises(DataError, match=message):
        metric(labels, probabilities)


def test_logits_and_weights_that_cannot_be_are_refused():
    with pytest.raises(DataError, match=r"1 of 2 do not, first -3.*Pass logits through a sigmoid"):
        log_loss([0, 1], [-3.0, 0.2])
    for weights, message in (
        [[1, -1], "first -1"],
        [[0, 0], "All 2 weights are 0"],
        [[1], "one a"],
    ):
        with pytest.raises(DataError, match=message):
            auc([0, 1], [0.1, 0.2], weights=weights)
