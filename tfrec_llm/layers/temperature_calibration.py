"""Probabilities made more or less sure by one number."""

from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.optimize import brentq
from scipy.special import expit, logit

from tfrec_llm.errors import DataError
from tfrec_llm.layers.calibration import Calibration, calibration_data

# What float32 tells from one: a probability nearer to 0 or 1 counts as this near.
_LEAST = 2.0**-23
# Labels that are told apart without an error would lead to a temperature of zero.
_COLDEST = 0.01


@keras.saving.register_keras_serializable(package="tfrec_llm")
class TemperatureCalibration(Calibration):
    """Divides logits by a temperature: `p' = sigmoid(logit(p) / temperature)`.

    Above 1 it makes a model that is too sure of itself less sure. One number is fitted well by
    few labels; where the curve is bent in other ways, see `IsotonicCalibration`. A probability
    of 0.5 stays what it is, and the order of all of them, so AUC does not change.

    Args:
        temperature: Its value until another is loaded.

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
        On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599
    """

    def __init__(self, temperature: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.initial_temperature = temperature

    @classmethod
    def fit(
        cls, labels: Any, probabilities: Any, *, weights: Any = None
    ) -> "TemperatureCalibration":
        """Finds the temperature of the least log loss on held-out labels.

        Args:
            labels: `[n]` or `[n, 1]` in 0..1, of pairs the model was not trained on.
            probabilities: Float `[n]` or `[n, 1]`, what the model gives for them.
            weights: Float `[n]`, 0 or more; None for equal ones.

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

        def slope(inverse: float) -> float:
            """Of the log loss, which is convex in the inverse of the temperature."""
            return float(np.sum(weights * (expit(inverse * logits) - labels) * logits))

        if slope(0.0) >= 0:
            raise DataError(
                "Saying 0.5 for every pair is better than these probabilities: they are low for "
                "clicks and high for the rest. Check what the labels stand for."
            )
        coldest = 1.0 / _COLDEST
        inverse = coldest if slope(coldest) <= 0 else brentq(slope, 0.0, coldest, xtol=1e-12)
        layer = cls(1.0 / inverse)
        layer.build()
        return layer

    def build(self, probabilities_shape=None):
        self.temperature = self.add_constant("temperature", self.initial_temperature)
        super().build(probabilities_shape)

    def calibrated(self, probabilities):
        inside = ops.clip(probabilities, _LEAST, 1.0 - _LEAST)
        return ops.sigmoid((ops.log(inside) - ops.log1p(-inside)) / self.temperature)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"temperature": self.initial_temperature}
