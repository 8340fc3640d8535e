import numpy as np
import pytest
from scipy.stats import ks_2samp

from tfrec_llm.monitoring import Drift, population_stability


def counted(rng, shares, size):
    return dict(enumerate(np.bincount(rng.choice(len(shares), size, p=shares), minlength=3)))


def test_the_stability_index_is_that_of_its_formula():
    before, now = np.array([400, 600]), np.array([700, 300])
    p, q = before / 1000, now / 1000
    expected = float(((q - p) * np.log(q / p)).sum())
    assert population_stability(before, now) == pytest.approx(expected, rel=0.01)
    assert population_stability(before, np.array([10, 0])) < np.inf


@pytest.mark.parametrize("size", [100, 400, 5000])
def test_what_has_not_changed_shows_no_drift_however_few_values_there_are(size):
    shares = 1 / np.arange(1, 201)
    shares /= shares.sum()
    excess = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        before, now = counted(rng, shares, 20_000), counted(rng, shares, size)
        excess.append(Drift.of_counts("items", before, now).excess)
    assert abs(np.mean(excess)) < 0.03
    assert max(excess) < 0.2


def test_few_and_new_categories_count_together():
    drift = Drift.of_counts("kind", {"top": 900, "hat": 99, "sock": 1}, {"top": 80, "scarf": 20})
    assert drift.labels == ("top", "hat", "others", "new")
    np.testing.assert_allclose(drift.now, [0.8, 0, 0, 0.2])
    assert drift.excess > 0.2
    assert 0 < drift.jensen_shannon < 1
    assert drift.kolmogorov_smirnov is None


def test_numbers_are_compared_by_tenths_and_by_their_largest_distance():
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=1000), rng.normal(0.7, size=800)
    same = Drift.of_values("score", before, rng.normal(size=800))
    moved = Drift.of_values("score", before, now)
    assert same.excess < 0.05
    assert moved.excess > 0.3
    assert moved.kolmogorov_smirnov == pytest.approx(ks_2samp(before, now).statistic)
    assert len(moved.labels) == 10
    constant = Drift.of_values("length", np.ones(200), np.ones(150))
    assert constant.psi == pytest.approx(0, abs=0.001)
    assert constant.kolmogorov_smirnov == 0
