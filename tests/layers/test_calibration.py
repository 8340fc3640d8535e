import sys

import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.errors import DataError
from tfrec_llm.layers import IsotonicCalibration, PriorCorrection, TemperatureCalibration
from tfrec_llm.metrics import auc, calibration_error, log_loss

FITTED = [TemperatureCalibration, IsotonicCalibration]
SHAPES = [(), (7,), (4, 1), (2, 3, 5)]


def clicks(seed, *, sharpness=1.0, rows=6000, mean=-1.5):
    """Labels, and the probabilities of a model that is so much too sure of itself."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(mean, 1.2, rows)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
    return labels.astype("float32"), (1 / (1 + np.exp(-sharpness * logits))).astype("float32")


def applied(layer, probabilities):
    return ops.convert_to_numpy(layer(np.asarray(probabilities)))


def fitted():
    labels, probabilities = clicks(0, sharpness=2.0)
    pytest.importorskip("sklearn")
    return [
        PriorCorrection(0.1),
        TemperatureCalibration.fit(labels, probabilities),
        TemperatureCalibration.fit(labels, probabilities, shift=True),
        IsotonicCalibration.fit(labels, probabilities),
    ]


@pytest.mark.parametrize(
    ("layer_class", "arguments"),
    [
        (TemperatureCalibration, {"temperature": 1.5, "shift": -0.2}),
        (IsotonicCalibration, {"num_knots": 5}),
        (PriorCorrection, {"rate": 0.1}),
    ],
)
def test_calibrations_are_sound_layers(layer_class, arguments):
    probabilities = np.random.default_rng(0).random((3, 4)).astype("float32")
    run_layer_test(
        layer_class, arguments, probabilities, output_shape=(3, 4), mixed_dtype="float32"
    )
    assert keras.saving.get_registered_name(layer_class) == f"tfrec_llm>{layer_class.__name__}"


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_of_probabilities_gives_sound_probabilities(shape):
    probabilities = np.random.default_rng(0).random(shape)
    for layer in fitted():
        assert layer.trainable_weights == []
        for dtype in ("float16", "float32", "float64"):
            output = layer(ops.convert_to_tensor(probabilities, dtype))
            assert output.shape == shape
            assert keras.backend.standardize_dtype(output.dtype) == "float32"
        found = ops.convert_to_numpy(output)
        assert ((found >= 0) & (found <= 1)).all()


def test_calibrations_are_soundly_monotone():
    steps = np.unique(np.r_[np.linspace(0, 1, 20_001), np.geomspace(1e-30, 1, 500)])
    for layer in fitted():
        found = applied(layer, steps.astype("float32"))
        assert (np.diff(found) >= -1e-7).all()
        assert found[-1] > found[0]


def test_a_calibration_in_mixed_precision_keeps_the_digits_of_small_probabilities():
    layer = PriorCorrection(1.0, dtype="mixed_bfloat16")
    small = np.array([1.2345e-4, 1.2346e-4], "float32")
    np.testing.assert_allclose(applied(layer, small), small, rtol=1e-6)


@pytest.mark.parametrize("layer_class", FITTED)
def test_what_is_too_sure_becomes_true_on_other_labels(layer_class):
    pytest.importorskip("sklearn")
    labels, probabilities = clicks(0, sharpness=2.0)
    layer = layer_class.fit(labels, probabilities)
    others, given = clicks(1, sharpness=2.0)
    calibrated = applied(layer, given)
    assert calibration_error(others, given) > 0.06
    assert calibration_error(others, calibrated) < 0.02
    assert log_loss(others, calibrated) < log_loss(others, given) - 0.05
    assert auc(others, calibrated) == pytest.approx(auc(others, given), abs=2e-3)


def test_the_temperature_is_that_of_the_least_log_loss():
    labels, probabilities = clicks(0, sharpness=2.0)
    weights = np.random.default_rng(0).integers(0, 4, len(labels))
    for options in ({}, {"weights": weights}):
        layer = TemperatureCalibration.fit(labels, probabilities, **options)
        best = float(layer.temperature)
        losses = [
            log_loss(labels, applied(TemperatureCalibration(t), probabilities), **options)
            for t in np.array([0.98, 1.0, 1.02]) * best
        ]
        assert losses[1] == min(losses)
    assert best == pytest.approx(2.0, rel=0.1)
    twice = np.repeat(np.arange(len(labels)), weights)
    again = TemperatureCalibration.fit(labels[twice], probabilities[twice])
    assert float(again.temperature) == pytest.approx(best, rel=1e-5)


def test_temperature_and_shift_are_the_logistic_regression_on_logits():
    linear_model = pytest.importorskip("sklearn.linear_model")
    labels, probabilities = clicks(0, sharpness=2.0, mean=-3.0)
    weights = np.random.default_rng(0).integers(0, 4, len(labels))
    layer = TemperatureCalibration.fit(labels, probabilities, weights=weights, shift=True)
    exact = probabilities.astype("float64")
    logits = np.log(exact) - np.log1p(-exact)
    regression = linear_model.LogisticRegression(C=np.inf, tol=1e-10)
    regression.fit(logits[:, None], labels, sample_weight=weights)
    assert 1 / float(layer.temperature) == pytest.approx(regression.coef_[0, 0], rel=1e-4)
    assert float(layer.shift) == pytest.approx(regression.intercept_[0], rel=1e-3, abs=1e-4)
    calibrated = applied(layer, probabilities)
    rate = np.average(labels, weights=weights)
    assert np.average(calibrated, weights=weights) == pytest.approx(rate, rel=1e-4)


def test_rare_clicks_need_the_shift():
    labels, probabilities = clicks(0, mean=-4.0, rows=20_000)
    too_high = 4 * probabilities / (1 + 3 * probabilities)
    errors = [
        calibration_error(
            labels, applied(TemperatureCalibration.fit(labels, too_high, shift=shift), too_high)
        )
        for shift in (False, True)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_the_temperature_is_the_power_of_the_odds_in_plain_numbers():
    probabilities = np.array([1e-5, 0.02, 0.3, 0.5, 0.9], "float32")
    odds = (probabilities / (1 - probabilities)) ** (1 / 1.7)
    found = applied(TemperatureCalibration(1.7), probabilities)
    np.testing.assert_allclose(found, odds / (1 + odds), rtol=1e-5)


def test_sure_errors_are_softened_and_labels_told_apart_give_a_finite_temperature():
    labels, probabilities = clicks(0, sharpness=2.0)
    layer = TemperatureCalibration.fit(labels, probabilities)
    ends = applied(layer, [0.0, 1.0])
    assert 0 < ends[0] < 1e-3
    assert 0.999 < ends[1] < 1
    for shift in (False, True):
        layer = TemperatureCalibration.fit([0, 1], [0.2, 0.7], shift=shift)
        assert 0.0099 < float(layer.temperature) < 0.2


def test_the_curve_is_that_of_scikit_learn():
    isotonic = pytest.importorskip("sklearn.isotonic")
    labels, probabilities = clicks(0, sharpness=0.5, rows=2000)
    weights = np.random.default_rng(0).integers(1, 4, len(labels)).astype(float)
    half = 0.5 / 2000
    curve = isotonic.IsotonicRegression(y_min=half, y_max=1 - half, out_of_bounds="clip")
    curve.fit(probabilities.astype("float64"), labels, sample_weight=weights)
    layer = IsotonicCalibration.fit(labels, probabilities, weights=weights)
    asked = np.random.default_rng(1).random(5000).astype("float32")
    np.testing.assert_allclose(applied(layer, asked), curve.predict(asked), atol=2e-6)
    np.testing.assert_allclose(applied(layer, probabilities).mean(), labels.mean(), atol=0.02)


def test_an_unfitted_curve_changes_nothing_and_a_flat_one_is_the_rate_in_plain_numbers():
    asked = np.random.default_rng(0).random(100).astype("float32")
    np.testing.assert_allclose(applied(IsotonicCalibration(num_knots=9), asked), asked, atol=1e-6)
    pytest.importorskip("sklearn")
    one = IsotonicCalibration.fit([0, 1, 0, 0], np.full(4, 0.3))
    wrong_way = IsotonicCalibration.fit([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4])
    for layer in (one, wrong_way):
        np.testing.assert_allclose(applied(layer, asked), 0.25, rtol=1e-6)


def test_a_curve_of_few_labels_never_promises_everything_or_nothing():
    pytest.importorskip("sklearn")
    layer = IsotonicCalibration.fit([0] * 10 + [1] * 10, np.linspace(0.01, 0.99, 20))
    assert applied(layer, [0.0, 1.0]).tolist() == pytest.approx([0.025, 0.975])


@pytest.mark.parametrize("rate", [0.03, 0.5, 1.0])
def test_sampled_negatives_are_corrected_to_the_true_probabilities(rate):
    rng = np.random.default_rng(0)
    # Pairs of few kinds: the best model of a sample is the rate of clicks of each kind.
    kinds = rng.integers(0, 4, 400_000)
    true = np.array([0.01, 0.05, 0.2, 0.6])
    labels = rng.random(400_000) < true[kinds]
    kept = labels | (rng.random(400_000) < rate)
    shown = np.bincount(kinds[kept])
    learnt = np.bincount(kinds[kept], labels[kept]) / shown
    np.testing.assert_allclose(applied(PriorCorrection(rate), learnt), true, rtol=0.08)


@pytest.mark.parametrize("make", range(4))
def test_a_model_keeps_its_calibration_when_saved_and_exported(make, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModels are TensorFlow's")
    import tensorflow as tf

    calibration = fitted()[make]
    inputs = keras.Input((5,), name="features")
    clicked = keras.layers.Dense(1, "sigmoid")(inputs)
    model = keras.Model(inputs, calibration(clicked))
    features = np.random.default_rng(0).normal(size=(40, 5)).astype("float32")
    raw = keras.Model(inputs, clicked).predict(features, verbose=0)
    expected = applied(calibration, raw)
    np.testing.assert_allclose(model.predict(features, verbose=0), expected, atol=1e-6)
    assert np.abs(expected - raw).max() > 0.05

    # What is served needs no scikit-learn.
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(features, verbose=0), expected, atol=1e-6)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(features), expected, atol=1e-6)

    weights = model.get_weights()
    model.compile("sgd", "binary_crossentropy")
    model.fit(features, np.ones((40, 1)), verbose=0)
    for before, after in zip(weights[2:], model.get_weights()[2:], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("layer_class", FITTED)
@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 0], [0.1, 0.2], "All 2 labels are 0.*labels of both"),
        ([1, 1], [0.1, 0.2], "All 2 labels are 1"),
        ([], [], "no labels"),
        ([0, 1], [0.1, np.nan], "1 of 2 probabilities are NaN"),
        ([0, 1], [0.1, 7.0], "first 7.*through a sigmoid"),
        ([0, np.nan], [0.1, 0.2], "1 of 2 labels are NaN"),
        ([0, 1], [0.1], "for 2 labels"),
    ],
)
def test_labels_that_say_nothing_are_refused(layer_class, labels, probabilities, message):
    pytest.importorskip("sklearn")
    with pytest.raises(DataError, match=message):
        layer_class.fit(labels, probabilities)


def test_a_temperature_cannot_turn_the_order_round():
    for given in ([0.2, 0.7], [0.3, 0.3]):
        with pytest.raises(DataError, match="no higher for clicks than for the rest"):
            TemperatureCalibration.fit([1, 0], given, shift=True)
    with pytest.raises(DataError, match=r"Saying 0\.5 for every pair is better"):
        TemperatureCalibration.fit([1, 0], [0.2, 0.7])


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_that_cannot_be_are_refused(number):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        TemperatureCalibration(number)
    with pytest.raises(ValueError, match="num_knots must be 2 or more"):
        IsotonicCalibration(number)
    with pytest.raises(ValueError, match=r"rate is the share.*got"):
        PriorCorrection(number)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        PriorCorrection(1.5)


def test_without_scikit_learn_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(ImportError, match=r"pip install 'tfrec-llm\[ranking\]'"):
        IsotonicCalibration.fit([0, 1], [0.1, 0.2])
