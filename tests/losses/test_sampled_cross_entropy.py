import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from tfrec_llm.losses import CatalogCrossEntropy, SampledCrossEntropy
from tfrec_llm.losses.sampled_cross_entropy import _draw_by_shares

POSITIONS, ITEMS, WIDTH = 12, 30, 6


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(POSITIONS, WIDTH)).astype("float32")
    table = rng.normal(size=(ITEMS, WIDTH)).astype("float32")
    return rng.integers(3, ITEMS, POSITIONS), hidden, table, rng.random(POSITIONS)


@pytest.fixture
def frequencies():
    counts = np.random.default_rng(1).integers(1, 200, ITEMS)
    counts[:3] = 1000
    return counts


def drawn(seed, num_negatives, frequencies=None, power=0.75, first_item=3, steps=1):
    """The items that a loss of this seed draws, and the expected counts of all items."""
    loss = SampledCrossEntropy(num_negatives, frequencies=frequencies, power=power, seed=seed)
    every = ops.arange(ITEMS)
    draws = [loss._draw(every, ITEMS, first_item) for _ in range(steps)]
    counts = np.broadcast_to(ops.convert_to_numpy(draws[0][2]), (ITEMS,))
    return [ops.convert_to_numpy(negatives) for negatives, _, _ in draws], counts


def test_uniform_draws_reach_every_candidate_alike_and_no_other():
    negatives, counts = drawn(0, 30_000)
    shares = np.bincount(negatives[0], minlength=ITEMS) / 30_000
    assert (shares[:3] == 0).all()
    assert np.abs(shares[3:] - 1 / 27).max() < 0.006
    np.testing.assert_allclose(counts, 30_000 / 27, rtol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_draws_by_frequency_follow_it(power, frequencies):
    negatives, counts = drawn(0, 30_000, frequencies, power)
    expected = np.where(np.arange(ITEMS) < 3, 0, frequencies.astype("float64") ** power)
    expected /= expected.sum()
    shares = np.bincount(negatives[0], minlength=ITEMS) / 30_000
    assert (shares[:3] == 0).all()
    assert np.abs(shares - expected).max() < 0.006
    np.testing.assert_allclose(counts[3:], 30_000 * expected[3:], rtol=1e-5)


@pytest.mark.parametrize("by_frequency", [False, True])
def test_the_loss_is_what_the_formula_gives_for_the_same_draws(by_frequency, case, frequencies):
    targets, hidden, table, weights = case
    frequencies = frequencies if by_frequency else None
    loss = SampledCrossEntropy(20, frequencies=frequencies, seed=5)
    found = float(loss(targets, hidden, table, weights, first_item=3))
    (negatives,), counts = drawn(5, 20, frequencies)
    assert np.isin(negatives, targets).any(), "some draws are targets"
    expected = 0.0
    for position, target in enumerate(targets):
        logit = hidden[position] @ table[target] - np.log(counts[target])
        others = [
            hidden[position] @ table[item] - np.log(counts[item])
            for item in negatives
            if item != target
        ]
        entropy = np.log(np.sum(np.exp([logit, *others]))) - logit
        expected += weights[position] / weights.sum() * entropy
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_is_what_its_formula_gives_for_the_same_draws(calibration, case):
    targets, hidden, table, weights = case
    loss = SampledCrossEntropy(20, kind="gbce", calibration=calibration, seed=5)
    found = float(loss(targets, hidden, table, weights, first_item=3))
    (negatives,), _ = drawn(5, 20)
    # Equations 7 and 13 of gSASRec: alpha is the sampling rate among the negatives.
    alpha = 20 / (27 - 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    expected = 0.0
    for position, target in enumerate(targets):
        positive = 1 / (1 + np.exp(-hidden[position] @ table[target]))
        others = [
            1 / (1 + np.exp(-hidden[position] @ table[item]))
            for item in negatives
            if item != target
        ]
        entropy = -beta * np.log(positive) - np.sum(np.log1p(-np.array(others)))
        expected += weights[position] / weights.sum() * entropy
    assert found == pytest.approx(expected, rel=1e-4)
    assert beta == pytest.approx({0.0: 1.0, 0.75: 0.75 * alpha + 0.25, 1.0: alpha}[calibration])


def test_as_many_draws_as_items_come_near_the_whole_catalogue(case):
    targets, hidden, table, _ = case
    # A catalogue of 6,000 in which each vector occurs 200 times, so that draws are near their mean.
    many = np.tile(table, (200, 1))
    loss = SampledCrossEntropy(len(many), seed=0)
    full = float(CatalogCrossEntropy()(targets, hidden, many))
    assert float(loss(targets, hidden, many)) == pytest.approx(full, abs=0.05)


@pytest.mark.parametrize("by_frequency", [False, True])
def test_the_correction_makes_the_sampled_sum_expect_that_of_the_catalogue(
    by_frequency, case, frequencies
):
    targets, hidden, table, _ = case
    targets, hidden = targets[:1], hidden[:1] / 2
    frequencies = frequencies if by_frequency else None
    loss = SampledCrossEntropy(5000, frequencies=frequencies, seed=0)
    _, counts = drawn(0, 5000, frequencies)
    full = float(CatalogCrossEntropy()(targets, hidden, table, first_item=3))
    sampled = float(loss(targets, hidden, table, first_item=3))
    # exp(loss) - 1 is the sum over the other items by the target: e^(s_j - s_t).
    ratio = (np.exp(sampled) - 1) / (counts[targets[0]] * (np.exp(full) - 1))
    assert ratio == pytest.approx(1, abs=0.05)


def test_a_position_is_not_punished_for_drawing_its_own_target():
    # All draws are item 3, the target of the first position.
    frequencies = np.array([0, 0, 0, 1, 0, 0])
    hidden, table = np.ones((2, 4), "float32"), np.eye(6, 4, dtype="float32")
    for kind in ("softmax", "gbce"):
        loss = SampledCrossEntropy(8, frequencies=frequencies, kind=kind, seed=0)
        _, (gradient, _) = value_and_gradients(
            lambda h, t, loss=loss: loss([3, 4], h, t, first_item=3), hidden, table
        )
        away_from_item_3 = gradient[:, 3]
        if kind == "softmax":
            assert away_from_item_3[0] == pytest.approx(0, abs=1e-6)
        else:
            assert away_from_item_3[0] < 0
        assert away_from_item_3[1] > 0


def test_its_gradient_reaches_only_targets_and_draws(case):
    targets, hidden, table, weights = case
    loss = SampledCrossEntropy(4, seed=3)
    _, (_, gradient) = value_and_gradients(
        lambda h, t: loss(targets, h, t, weights, first_item=3), hidden, table
    )
    (negatives,), _ = drawn(3, 4)
    touched = np.flatnonzero(np.abs(gradient).sum(-1))
    assert set(touched) == set(targets) | set(negatives)


def test_the_same_seed_repeats_and_every_call_draws_anew(case):
    targets, hidden, table, _ = case

    def three(seed):
        loss = SampledCrossEntropy(8, seed=seed)
        return [float(loss(targets, hidden, table)) for _ in range(3)]

    assert three(1) == three(1)
    assert three(1) != three(2)
    assert len(set(three(1))) == 3


def test_the_configuration_makes_the_round_trip(case, frequencies):
    targets, hidden, table, _ = case
    loss = SampledCrossEntropy(8, frequencies=frequencies, power=0.5, kind="gbce", seed=4)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(targets, hidden, table)) == float(loss(targets, hidden, table))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_negatives": 0}, "num_negatives must be positive, got 0"),
        ({"kind": "bpr"}, "kind must be one of.*'bpr'"),
        ({"calibration": 1.5}, "calibration must lie in 0..1, got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SampledCrossEntropy(**options)


def test_frequencies_of_another_table_are_refused(case):
    targets, hidden, table, _ = case
    with pytest.raises(ValueError, match="each of the 30 rows of the table, got 7"):
        SampledCrossEntropy(8, frequencies=np.ones(7))(targets, hidden, table)


def test_rows_of_a_large_table_are_drawn_by_their_shares():
    shares = 1.0 / np.arange(1, 1_000_001)
    shares /= shares.sum()
    seed = keras.random.SeedGenerator(0)
    drawn = np.concatenate(
        [ops.convert_to_numpy(_draw_by_shares(shares, 2000, seed)) for _ in range(20)]
    )
    # Tenths of the probability, and the parity of the many rare rows.
    tenths = np.minimum(np.cumsum(shares)[drawn] * 10, 9.999).astype(int)
    expected = np.bincount(np.minimum(np.cumsum(shares) * 10, 9.999).astype(int), shares)
    assert np.abs(np.bincount(tenths, minlength=10) / len(drawn) - expected).max() < 0.01
    assert (drawn[drawn > 1000] % 2).mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.min() == 0
    assert drawn.max() > 900_000
