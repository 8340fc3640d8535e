"""Probabilities made more or less sure by one number or two."""

from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from tfrec_llm.errors import DataError
from tfrec_llm.layers.calibration import Calibration, calibration_data

# What float32 tells from one: a probability nearer to 0 or 1 counts as this near.
_LEAST = 2.0**-23
# Labels that are told apart without an error would lead to a temperature of zero.
_COLDEST = 0.01


@keras.saving.register_keras_serializable(package="tfrec_llm")
class TemperatureCalibration(Calibration):
    """Divides logits by a temperature: `p' = sigmoid(logit(p) / temperature + shift)`.

    Above 1 it makes a model that is too sure of itself less sure. One number or two are fitted
    well by few labels; where the curve is bent in other ways, see `IsotonicCalibration`. The
    order of pairs stays, and so does AUC.

    Args:
        temperature: Its value until another is loaded.
        shift: What is added to logits until another is loaded. Without one a probability of 0.5
            stays what it is.

    Call arguments:
        probabilities: Float tensor of any shape, in 0..1.

    Returns:
        float32 tensor of the same shape, in 0..1.

    Raises:
        ValueError: If `temperature` is not above 0.

    Example:
        >>> layer = TemperatureCalibration(temperature=2.0)
        >>> layer(np.array([0.1, 0.5, 0.9])).numpy().round(2).tolist()
        [0.25, 0.5, 0.75]

    Reference:
        On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599;
        with a shift: Platt, Probabilistic Outputs for Support Vector Machines, 1999
    """

    def __init__(self, temperature: float = 1.0, shift: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.initial_temperature = temperature
        self.initial_shift = shift

    @classmethod
    def fit(
        cls, labels: Any, probabilities: Any, *, weights: Any = None, shift: bool = False
    ) -> "TemperatureCalibration":
        """Finds the temperature of the least log loss on held-out labels.

        Args:
            labels: `[n]` or `[n, 1]` in 0..1, of pairs the model was not trained on.
            probabilities: Float `[n]` or `[n, 1]`, what the model gives for them.
            weights: Float `[n]`, 0 or more; None for equal ones.
            shift: Whether to fit a shift, too. The mean probability then is the rate of clicks;
                without it, making a model of rare clicks less sure moves all towards 0.5.

        Returns:
            A layer with that temperature, 0.01 at least.

        Raises:
            DataError: If there are no labels, lengths differ, a value is NaN or outside 0..1, all
                labels are of one class, or the probabilities point the wrong way.

        Example:
            >>> layer = TemperatureCalibration.fit([1, 0, 1, 0], [0.99, 0.01, 0.01, 0.01])
            >>> round(float(layer.temperature), 2)
            4.18
        """
        labels, probabilities, weights = calibration_data(labels, probabilities, weights)
        logits = logit(np.clip(probabilities, _LEAST, 1.0 - _LEAST))
        if shift:
            layer = cls(*_temperature_and_shift(logits, labels, weights))
        else:
            layer = cls(_temperature(logits, labels, weights))
        layer.build()
        return layer

    def build(self, probabilities_shape=None):
        self.temperature = self.add_constant("temperature", self.initial_temperature)
        self.shift = self.add_constant("shift", self.initial_shift)
        super().build(probabilities_shape)

    def calibrated(self, probabilities):
        inside = ops.clip(probabilities, _LEAST, 1.0 - _LEAST)
        logits = ops.log(inside) - ops.log1p(-inside)
        return ops.sigmoid(logits / self.temperature + self.shift)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "temperature": self.initial_temperature,
            "shift": self.initial_shift,
        }


def _temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    def slope(inverse: float) -> float:
        """Of the log loss, which is convex in the inverse of the temperature."""
        return float(np.sum(weights * (expit(inverse * logits) - labels) * logits))

    if slope(0.0) >= 0:
        raise DataError(
            "Saying 0.5 for every pair is better than these probabilities: they are low for "
            "clicks and high for the rest. Check what the labels stand for."
        )
    coldest = 1.0 / _COLDEST
    return _COLDEST if slope(coldest) <= 0 else 1.0 / brentq(slope, 0.0, coldest, xtol=1e-12)


def _temperature_and_shift(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    weights = weights / weights.sum()
    rate, centre = weights @ labels, weights @ logits
    deviation = np.sqrt(weights @ np.square(logits - centre))
    if weights @ ((labels - rate) * (logits - centre)) <= 1e-12 * deviation:
        raise DataError(
            "These probabilities are no higher for clicks than for the rest, so no temperature "
            "makes them true. Check what the labels stand for."
        )
    # Around their centre and in their own units, the two numbers hardly depend on each other.
    scaled = (logits - centre) / deviation

    def loss_and_slopes(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        given = numbers[0] * scaled + numbers[1]
        loss = weights @ (np.logaddexp(0.0, given) - labels * given)
        wrong = weights * (expit(given) - labels)
        return float(loss), np.array([wrong @ scaled, wrong.sum()])

    found = minimize(
        loss_and_slopes,
        [1.0, logit(rate)],
        jac=True,
        method="L-BFGS-B",
        bounds=[(1e-6, deviation / _COLDEST), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    inverse = found.x[0] / deviation
    return float(1.0 / inverse), float(found.x[1] - inverse * centre)
