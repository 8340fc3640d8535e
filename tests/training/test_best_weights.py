"""The best epoch's weights, averages over epochs, schedules."""

import keras
import numpy as np
import pytest

from tfrec_llm.training import BestWeights, ScoringCopy, learning_rate_schedule


def one_weight(value):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((1, 1), value, np.float32)])
    return model


def weight(model):
    return float(model.get_weights()[0][0, 0])


def test_best_weights_come_back_and_training_stops_after_patience():
    trained, scoring = one_weight(0.0), one_weight(0.0)
    best = BestWeights(scoring, monitor="val_ndcg@10", patience=2)
    best.set_model(trained)
    best.on_train_begin()
    for epoch, value in enumerate([0.1, 0.3, 0.2, 0.3]):
        scoring.set_weights([np.full((1, 1), float(epoch), np.float32)])
        best.on_epoch_end(epoch, {"val_ndcg@10": value})
        assert bool(getattr(trained, "stop_training", False)) == (epoch == 3)
    best.on_train_end()
    assert (best.best_epoch, weight(scoring)) == (1, 1.0)


def test_a_metric_that_is_not_reported_is_told():
    best = BestWeights(one_weight(0.0), monitor="val_mrr@10", patience=2)
    with pytest.raises(KeyError, match="val_mrr@10"):
        best.on_epoch_end(0, {"loss": 1.0})


def test_scoring_copy_averages_over_the_epochs_ends():
    trained, scoring = one_weight(0.0), one_weight(9.0)
    copy = ScoringCopy(trained, scoring, averaging=0.75)
    values = [4.0, 8.0, 2.0, 5.0]
    for epoch, value in enumerate(values):
        trained.set_weights([np.full((1, 1), value, np.float32)])
        copy.on_epoch_end(epoch)
        shares = 0.75 ** np.arange(epoch, -1, -1)
        assert weight(scoring) == pytest.approx(np.average(values[: epoch + 1], weights=shares))
    assert weight(trained) == 5.0


@pytest.mark.parametrize("averaging", [-0.1, 1.0])
def test_an_average_of_nothing_is_refused(averaging):
    model = one_weight(0.0)
    with pytest.raises(ValueError, match="weight_averaging"):
        ScoringCopy(model, model, averaging=averaging)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0]),
        ("linear", [0.0, 0.5, 1.0, 0.5, 0.0]),
        ("cosine", [0.0, 0.5, 1.0, 0.5, 0.0]),
    ],
)
def test_schedules_rise_and_fall(schedule, expected):
    rate = learning_rate_schedule(schedule, 1.0, num_steps=100, warmup=0.1)
    found = [float(rate(step)) for step in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    again = type(rate).from_config(rate.get_config())
    assert float(again(7)) == float(rate(7))


def test_a_constant_rate_stays_a_number():
    assert learning_rate_schedule("constant", 1e-3, num_steps=100) == 1e-3


def test_misspelt_schedules_are_told():
    with pytest.raises(ValueError, match="cosine"):
        learning_rate_schedule("cosin", 1e-3, num_steps=100)
    with pytest.raises(ValueError, match="warmup"):
        learning_rate_schedule("cosine", 1e-3, num_steps=100, warmup=1.5)
