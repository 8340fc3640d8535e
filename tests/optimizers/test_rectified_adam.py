import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.optimizers import RectifiedAdam


def plain(gradients, start, *, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7, threshold=5.0):
    """Algorithm 2 of the paper in float64, with the rate of each step."""
    weight, mean, square, found = np.array(start, "float64"), 0.0, 0.0, []
    longest = 2 / (1 - beta_2) - 1
    for step, gradient in enumerate(np.asarray(gradients, "float64"), 1):
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        change = mean / (1 - beta_1**step)
        length = longest - 2 * step * beta_2**step / (1 - beta_2**step)
        if length >= threshold:
            factor = (length - 4) * (length - 2) * longest
            factor /= (longest - 4) * (longest - 2) * length
            change *= np.sqrt(factor) / (np.sqrt(square / (1 - beta_2**step)) + epsilon)
        weight = weight - rate(step) * change
        found.append(weight)
    return np.stack(found)


def stepped(optimizer, gradients, start):
    weight = keras.Variable(np.asarray(start, "float32"))
    found = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [weight])
        found.append(ops.convert_to_numpy(weight))
    return np.stack(found)


GRADIENTS = np.random.default_rng(0).normal(size=(30, 5))


@pytest.mark.parametrize("beta_2", [0.9, 0.99, 0.999, 0.9999, 0.99999])
def test_the_factor_is_that_of_a_plain_computation(beta_2):
    found = stepped(RectifiedAdam(0.1, beta_2=beta_2), GRADIENTS, np.ones(5))
    expected = plain(GRADIENTS, np.ones(5), rate=lambda step: 0.1, beta_2=beta_2)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("beta_2", [0.8, 0.999, 0.99999])
def test_the_length_of_the_average_is_exact_at_every_step(beta_2):
    steps = np.unique(np.logspace(0, 6, 200).astype("int64"))
    found = RectifiedAdam(beta_2=beta_2)._average_length(ops.convert_to_tensor(steps, "float32"))
    powers = np.expm1(steps * np.log(beta_2))  # b^t - 1
    expected = 2 / (1 - beta_2) - 1 + 2 * steps * (1 + powers) / powers
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=2e-6)


def test_long_after_the_start_its_step_is_that_of_adam():
    def last_step(optimizer):
        weight = keras.Variable([0.0])
        optimizer.build([weight])
        optimizer._iterations.assign(100_000)
        optimizer.apply([ops.convert_to_tensor([1.0])], [weight])
        return float(weight[0])

    found = last_step(RectifiedAdam(0.1))
    assert found == pytest.approx(last_step(keras.optimizers.Adam(0.1)), rel=1e-3)


def test_the_rate_rises_falls_and_stays_at_its_end():
    optimizer = RectifiedAdam(0.1, total_steps=20, warmup_proportion=0.25, min_lr=0.02)

    def rate(step):
        if step <= 5:
            return 0.1 * step / 5
        return max(0.1 - 0.08 * (step - 5) / 15, 0.02)

    found = stepped(optimizer, GRADIENTS, np.ones(5))
    np.testing.assert_allclose(found, plain(GRADIENTS, np.ones(5), rate=rate), atol=2e-5)
    assert float(optimizer.learning_rate) == pytest.approx(0.02)


def test_the_rise_and_the_fall_take_a_schedule_for_their_peak():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.0])
    optimizer = RectifiedAdam(schedule, total_steps=10, warmup_proportion=0.1)
    found = stepped(optimizer, GRADIENTS[:6], np.ones(5))
    np.testing.assert_array_equal(found[3], found[5])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    np.testing.assert_allclose(stepped(again, GRADIENTS[:6], np.ones(5)), found)


def test_the_largest_mean_of_squares_holds_steps_back_after_a_large_gradient():
    gradients = np.array([1.0] * 8 + [50.0] + [1.0] * 200)[:, None]
    both = [
        stepped(RectifiedAdam(0.1, beta_2=0.9, amsgrad=amsgrad), gradients, [0.0])
        for amsgrad in (False, True)
    ]
    steps = [np.abs(np.diff(found[-2:, 0])) for found in both]
    assert steps[1] < steps[0] / 5


def test_a_model_learns_with_weight_decay_and_clipping_and_goes_on_after_saving(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
    outputs = inputs.sum(axis=1, keepdims=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = RectifiedAdam(0.1, weight_decay=1e-3, clipnorm=5.0, total_steps=100)
    model.compile(optimizer=optimizer, loss="mse")
    losses = model.fit(inputs, outputs, epochs=25, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer, RectifiedAdam)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, again):
        each.fit(inputs, outputs, batch_size=16, shuffle=False, verbose=0)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("options", [{"total_steps": -1}, {"warmup_proportion": 1.5}])
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="total_steps must be 0 or more"):
        RectifiedAdam(**options)
