"""Adam without a warm-up to tune."""

import math
from typing import Any

import keras
from keras import ops

from tfrec_llm.optimizers.row_gradients import AddsUpRows, is_row_gradient


@keras.saving.register_keras_serializable(package="tfrec_llm")
class RectifiedAdam(AddsUpRows):
    """Adam whose first steps are held back while its mean of squares is uncertain.

    A factor from 0 to 1 follows from the number of gradients seen so far; before there are
    `sma_threshold` of them the step is that of momentum alone.

    With `total_steps` the learning rate first rises from 0 to `learning_rate`, then falls in a
    line to `min_lr`.

    On TensorFlow a gradient of looked-up rows moves only those rows, repeated ones added up; the
    moments of all rows decay. For tables so large that this counts there is `LazyAdam`.

    Args:
        learning_rate: Float, schedule or function.
        beta_1: Decay of the mean of gradients.
        beta_2: Decay of the mean of squared gradients.
        epsilon: Keeps the division finite.
        amsgrad: Whether to divide by the largest mean of squares so far.
        sma_threshold: Length of the approximated moving average from which on it is used.
        total_steps: Steps of the rise and the fall together. 0 leaves `learning_rate` alone.
        warmup_proportion: Share of `total_steps` in which the rate rises.
        min_lr: Rate at the end of the fall and after it.
        **kwargs: Of `keras.optimizers.Optimizer`, as `clipnorm` or `weight_decay`.

    Raises:
        ValueError: If `total_steps` is negative or `warmup_proportion` is not in 0..1.

    Example:
        >>> optimizer = RectifiedAdam(0.01, total_steps=100, warmup_proportion=0.1)
        >>> weight = keras.Variable([1.0, -2.0])
        >>> optimizer.apply([keras.ops.array([1.0, 1.0])], [weight])
        >>> keras.ops.convert_to_numpy(weight)  # by momentum, at a tenth of the rate
        array([ 0.999, -2.001], dtype=float32)

    Reference:
        On the Variance of the Adaptive Learning Rate and Beyond, https://arxiv.org/abs/1908.03265
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        sma_threshold: float = 5.0,
        total_steps: int = 0,
        warmup_proportion: float = 0.1,
        min_lr: float = 0.0,
        **kwargs: Any,
    ):
        if total_steps < 0 or not 0.0 <= warmup_proportion <= 1.0:
            raise ValueError(
                "total_steps must be 0 or more and warmup_proportion lie in 0..1, "
                f"got {total_steps} and {warmup_proportion}."
            )
        rate = learning_rate
        if total_steps:
            rate = _RiseAndFall(learning_rate, total_steps, warmup_proportion, min_lr)
        super().__init__(learning_rate=rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad
        self.sma_threshold = sma_threshold
        self.total_steps = total_steps
        self.warmup_proportion = warmup_proportion
        self.min_lr = min_lr

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._means, self._squares = self.add_optimizer_variables(variables, ["mean", "square"])
        if self.amsgrad:
            self._largest = self.add_optimizer_variables(variables, "largest_square")

    def update_step(self, gradient, variable, learning_rate):
        gradient = self.all_reduced(gradient)
        index = self._get_variable_index(variable)
        gradient = ops.cast(gradient, variable.dtype)
        mean = self._decayed(self._means[index], gradient, self.beta_1)
        square = self._decayed(self._squares[index], ops.square(gradient), self.beta_2)
        if self.amsgrad:
            square = ops.maximum(square, self._largest[index])
            self.assign(self._largest[index], square)
        if is_row_gradient(gradient):
            mean = ops.take(mean, gradient.indices, axis=0)
            square = ops.take(square, gradient.indices, axis=0)
        # In float32 even where the variable is not: half precision cannot count the steps.
        step = ops.cast(self.iterations + 1, "float32")
        correction_1 = -ops.expm1(step * math.log(self.beta_1))
        correction_2 = -ops.expm1(step * math.log(self.beta_2))
        factor, certain = self._rectification(step)
        rate = ops.cast(learning_rate, "float32") / correction_1
        by_momentum = ops.cast(rate, variable.dtype) * mean
        deviation = ops.sqrt(square / ops.cast(correction_2, variable.dtype)) + self.epsilon
        by_adam = ops.cast(rate * factor, variable.dtype) * mean / deviation
        change = ops.where(certain, by_adam, by_momentum)
        if is_row_gradient(gradient):
            change = type(gradient)(change, gradient.indices)
        self.assign_sub(variable, change)

    def _decayed(self, held, value, decay):
        """Moves a running mean on by `value` and returns it."""
        self.assign(held, held * decay)
        self.assign_add(held, ops.multiply(value, 1 - decay))  # of rows, too
        return ops.convert_to_tensor(held)

    def _rectification(self, step):
        """Returns the factor of a step and whether it is certain enough to be used."""
        longest = 2.0 / (1.0 - self.beta_2) - 1.0
        length = self._average_length(step)
        # Below 4 the factor is not defined.
        used = ops.maximum(length, 4.0)
        factor = (used - 4.0) * (used - 2.0) * longest / used
        factor = ops.sqrt(factor / ((longest - 4.0) * (longest - 2.0)))
        return factor, length >= self.sma_threshold

    def _average_length(self, step):
        """Returns the length of the simple moving average that the mean of squares is like.

        It is `2 / (1 - b) - 1 - 2 t b^t / (1 - b^t)`. At early steps float32 would lose this small
        difference of large numbers. With `d = -log b` and `B(x) = x/2 coth(x/2) - 1` it equals
        `t + 2 / d * (B(d) - B(d t))`, where B has a series for small x.
        """
        decay = -math.log(self.beta_2)
        x = decay * step
        series = x**2 / 12 * (1 - x**2 / 60 * (1 - x**2 / 42 * (1 - x**2 / 40)))
        first = decay / 2 / math.tanh(decay / 2) - 1.0
        early = step + 2.0 / decay * (first - series)
        late = 2.0 / (1.0 - self.beta_2) - 1.0 - 2.0 * step / ops.expm1(ops.maximum(x, 1.0))
        return ops.where(x < 1.0, early, late)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.total_steps:
            config["learning_rate"] = self._learning_rate.get_config()["peak"]
        return config | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
            "sma_threshold": self.sma_threshold,
            "total_steps": self.total_steps,
            "warmup_proportion": self.warmup_proportion,
            "min_lr": self.min_lr,
        }


class _RiseAndFall(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises to its peak and falls to its end, both in a line."""

    def __init__(self, peak: Any, total_steps: int, warmup_proportion: float, end: float):
        self.peak = peak
        self.rise = total_steps * warmup_proportion
        self.fall = max(total_steps - self.rise, 1.0)
        self.end = end

    def __call__(self, step):
        peak = self.peak
        if isinstance(peak, keras.optimizers.schedules.LearningRateSchedule):
            peak = peak(step)
        elif callable(peak):
            peak = peak()
        peak = ops.cast(peak, "float32")
        step = ops.cast(step, "float32") + 1.0  # the step to be taken counts
        rising = peak * step / max(self.rise, 1e-7)
        fallen = ops.minimum(step - self.rise, self.fall) / self.fall
        return ops.where(step <= self.rise, rising, peak + (self.end - peak) * fallen)

    def get_config(self) -> dict[str, Any]:
        peak = self.peak
        return {
            "peak": peak if isinstance(peak, float) else keras.saving.serialize_keras_object(peak)
        }
