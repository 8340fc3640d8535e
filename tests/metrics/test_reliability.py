import numpy as np
import pytest

from tfrec_llm.errors import DataError
from tfrec_llm.metrics import calibration_error, reliability_bins


@pytest.fixture
def clicks():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(1, 6, 600)
    return rng.random(600) < probabilities, probabilities, rng.integers(0, 3, 600)


def of_equal_width(labels, probabilities, bins):
    """A bin after another, a pair after another."""
    error = 0.0
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside = [
            row
            for row, p in enumerate(probabilities)
            if low < p <= high or (place == 0 and p == 0.0)
        ]
        if inside:
            predicted = sum(probabilities[row] for row in inside) / len(inside)
            observed = sum(labels[row] for row in inside) / len(inside)
            error += abs(predicted - observed) * len(inside) / len(labels)
    return error


@pytest.mark.parametrize("bins", [1, 4, 15, 1000])
def test_the_error_of_bins_of_equal_width_follows_its_definition(bins, clicks):
    labels, probabilities, _ = clicks
    found = calibration_error(labels, probabilities, bins=bins, binning="width")
    assert found == pytest.approx(of_equal_width(labels, probabilities, bins), rel=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 15, 600])
def test_bins_of_equal_mass_hold_equally_many_pairs_in_order(bins, clicks):
    labels, probabilities, _ = clicks
    order = np.argsort(probabilities)
    parts = np.split(order, bins)
    found = reliability_bins(labels, probabilities, bins=bins)
    np.testing.assert_array_equal(found.weight, 600 / bins)
    np.testing.assert_allclose(found.probability, [probabilities[p].mean() for p in parts])
    np.testing.assert_allclose(found.rate, [labels[p].mean() for p in parts])
    distances = np.abs(found.probability - found.rate)
    assert calibration_error(labels, probabilities, bins=bins) == pytest.approx(distances.mean())


@pytest.mark.parametrize(("binning", "theirs"), [("width", "uniform"), ("mass", "quantile")])
def test_bins_are_those_of_scikit_learn(binning, theirs, clicks):
    sklearn = pytest.importorskip("sklearn.calibration")
    labels, probabilities, _ = clicks
    found = reliability_bins(labels, probabilities, bins=12, binning=binning)
    rate, probability = sklearn.calibration_curve(labels, probabilities, n_bins=12, strategy=theirs)
    np.testing.assert_allclose(found.rate, rate)
    np.testing.assert_allclose(found.probability, probability)


@pytest.mark.parametrize("binning", ["mass", "width"])
def test_a_pair_of_weight_two_counts_as_two_pairs(binning, clicks):
    labels, probabilities, weights = clicks
    twice = np.repeat(np.arange(600), weights)
    found = calibration_error(labels, probabilities, weights=weights, binning=binning)
    expected = calibration_error(labels[twice], probabilities[twice], binning=binning)
    assert found == pytest.approx(expected, rel=1e-9)


def test_equal_probabilities_share_a_bin():
    labels = np.arange(90) < 30
    bins = reliability_bins(labels, np.repeat([0.2, 0.5], [80, 10]), bins=10)
    assert bins.weight.tolist() == [80, 10]
    assert calibration_error(labels, np.full(90, 1 / 3)) == pytest.approx(0)


def test_bins_that_cannot_be_equal_differ_by_one_pair():
    weight = reliability_bins(np.arange(100) % 2, np.linspace(0, 1, 100), bins=15).weight
    assert sorted(weight) == [6] * 5 + [7] * 10


@pytest.mark.parametrize("seed", range(5))
def test_no_bin_is_small_beside_large_groups_of_equal_probability(seed):
    rng = np.random.default_rng(seed)
    groups = rng.choice([0.1, 0.2, 0.3, 0.301, 0.9], 1000, p=[0.4, 0.01, 0.3, 0.27, 0.02])
    probabilities = np.where(rng.random(1000) < 0.05, rng.random(1000), groups)
    bins = reliability_bins(rng.random(1000) < probabilities, probabilities, bins=15)
    assert bins.weight.min() >= 1000 / 15 / 2
    assert bins.weight.sum() == 1000
    assert (np.diff(bins.probability) > 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_by_chance_is_what_a_perfect_model_has_on_average(weighted):
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.05, 0.3, 3000)
    weights = rng.integers(1, 6, 3000) if weighted else None
    errors = [
        calibration_error(rng.random(3000) < probabilities, probabilities, weights=weights)
        for _ in range(200)
    ]
    bins = reliability_bins(rng.random(3000) < probabilities, probabilities, weights=weights)
    assert bins.error_by_chance == pytest.approx(np.mean(errors), rel=0.05)
    wrong = rng.random(3000) < probabilities + 0.2
    assert calibration_error(wrong, probabilities) == pytest.approx(0.2, abs=0.03)


def test_rare_clicks_are_told_apart_by_bins_of_equal_mass_only():
    rng = np.random.default_rng(0)
    rates = rng.choice([0.001, 0.02], 40_000)
    labels = rng.random(40_000) < rates
    flat = np.full(40_000, labels.mean()) + rates * 1e-3
    assert calibration_error(labels, flat, binning="width") < 0.001
    assert calibration_error(labels, flat, binning="mass") > 0.008


def test_one_class_has_an_error_too():
    assert calibration_error([0, 0], [0.1, 0.3]) == pytest.approx(0.2)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="bins must be 1 or more, not 0"):
        calibration_error([0, 1], [0.1, 0.2], bins=0)
    with pytest.raises(ValueError, match="'quantile'"):
        calibration_error([0, 1], [0.1, 0.2], binning="quantile")
    with pytest.raises(DataError, match="1 of 2 probabilities are NaN"):
        calibration_error([0, 1], [0.1, np.nan])
    with pytest.raises(DataError, match=r"first 1\.2"):
        calibration_error([0, 1], [0.1, 1.2])
    with pytest.raises(DataError, match="no labels"):
        calibration_error([], [])
