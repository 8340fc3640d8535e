import itertools

import numpy as np
import pytest

from tfrec_llm.errors import DataError, NotFittedError
from tfrec_llm.evaluation import ProbabilityBlend
from tfrec_llm.metrics import log_loss


@pytest.fixture(scope="module")
def impressions():
    """Clicks, their true probabilities blurred in several ways, and weights."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-1.0, 1.5, 2000)
    labels = (rng.random(2000) < 1 / (1 + np.exp(-logits))).astype(float)

    def blurred(noise):
        return 1 / (1 + np.exp(-(logits + rng.normal(0, noise, 2000))))

    models = {"good": blurred(1.0), "fair": blurred(1.5), "useless": rng.random(2000)}
    return models, labels, rng.random(2000)


@pytest.mark.parametrize("weighted", [False, True])
def test_no_other_weights_have_a_smaller_log_loss(impressions, weighted):
    models, labels, weights = impressions
    weights = weights if weighted else None
    blend = ProbabilityBlend().fit(models, labels, sample_weight=weights)
    found = log_loss(labels, blend.predict(models), weights=weights)
    steps = np.linspace(0, 1, 21)
    others = [
        log_loss(
            labels, np.array([a, b, 1 - a - b]) @ np.stack([*models.values()]), weights=weights
        )
        for a, b in itertools.product(steps, steps)
        if a + b <= 1
    ]
    assert found <= min(others)
    assert sum(blend.weights.values()) == pytest.approx(1.0)
    assert blend.weights["good"] > blend.weights["fair"] > blend.weights["useless"]
    assert found < log_loss(labels, models["good"], weights=weights)


def test_a_model_that_says_all_gets_all_the_weight(impressions):
    _, labels, _ = impressions
    models = {"true": np.where(labels > 0, 0.9, 0.1), "coin": np.full(len(labels), 0.5)}
    assert ProbabilityBlend().fit(models, labels).weights["true"] == pytest.approx(1.0, abs=1e-3)


def test_given_weights_are_shares_and_further_names_are_left_aside():
    blend = ProbabilityBlend(weights={"a": 3, "b": 1})
    mixed = blend.predict({"a": [[0.8], [0.0]], "b": [[0.4], [1.0]], "c": [[1.0], [1.0]]})
    np.testing.assert_allclose(mixed, [0.7, 0.25])


def test_one_sure_error_does_not_silence_a_model(impressions):
    models, labels, _ = impressions
    sure = models["good"].copy()
    sure[np.flatnonzero(labels == 1)[0]] = 0.0
    blend = ProbabilityBlend().fit({"good": sure, "useless": models["useless"]}, labels)
    assert blend.weights["good"] > 0.5


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="not all 0"):
        ProbabilityBlend(weights={"a": 0.0})
    with pytest.raises(ValueError, match="not all 0"):
        ProbabilityBlend(weights={"a": 1.0, "b": -0.1})
    with pytest.raises(NotFittedError, match=r"call fit\(\)"):
        ProbabilityBlend().predict({"a": [0.5]})
    with pytest.raises(ValueError, match="probabilities of a model or more"):
        ProbabilityBlend().fit({}, [1.0])
    with pytest.raises(DataError, match=r"\['b'\] are missing"):
        ProbabilityBlend(weights={"a": 1, "b": 1}).predict({"a": [0.5]})
    with pytest.raises(DataError, match=r"must lie in 0\.\.1"):
        ProbabilityBlend().fit({"a": [1.5]}, [1])
    with pytest.raises(DataError):
        ProbabilityBlend(weights={"a": 1, "b": 1}).predict({"a": [0.5], "b": [0.5, 0.5]})
