"""Probabilities made true by the rising curve that fits best."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.layers.calibration import Calibration, calibration_data


@keras.saving.register_keras_serializable(package="tfrec_llm")
class IsotonicCalibration(Calibration):
    """Maps probabilities by the rising curve that is nearest to held-out labels.

    The curve has any shape, so it needs more labels than `TemperatureCalibration`: a thousand
    clicks or more. It has flat parts, in which pairs tie; otherwise their order stays. It is
    fitted by scikit-learn and computed without it, from the curve's knots, which are weights.

    Args:
        num_knots: Number of points the curve leads through, in straight lines; 2 or more. Until
            it is fitted or loaded, it maps every probability to itself.

    Call arguments:
        probabilities: Float tensor of any shape, in 0..1.

    Returns:
        float32 tensor of the same shape, in 0..1; beyond the first and the last knot what it is
        there.

    Raises:
        ValueError: If `num_knots` is below 2.

    Example:
        >>> IsotonicCalibration(num_knots=2)(np.array([0.25, 0.75])).numpy()
        array([0.25, 0.75], dtype=float32)

    Reference:
        Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability
        Estimates, KDD 2002
    """

    def __init__(self, num_knots: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        if num_knots < 2:
            raise ValueError(f"num_knots must be 2 or more, got {num_knots}.")
        self.num_knots = num_knots

    @classmethod
    def fit(cls, labels: Any, probabilities: Any, *, weights: Any = None) -> "IsotonicCalibration":
        """Finds the rising curve of the least squared error on held-out labels.

        It stays half a click in `n` off 0 and 1, so that one surprise does not cost everything.

        Args:
            labels: `[n]` or `[n, 1]` in 0..1, of pairs the model was not trained on.
            probabilities: Float `[n]` or `[n, 1]`, what the model gives for them.
            weights: Float `[n]`, 0 or more; None for equal ones.

        Returns:
            A layer with that curve.

        Raises:
            ImportError: If scikit-learn is not installed.
            DataError: If there are no labels, lengths differ, a value is NaN or outside 0..1, or
                all labels are of one class.

        Example:
            >>> layer = IsotonicCalibration.fit([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.8])
            >>> layer(np.array([0.0, 0.25, 0.9])).numpy()
            array([0.125, 0.5  , 0.875], dtype=float32)
        """
        try:
            from sklearn.isotonic import IsotonicRegression
        except ImportError as error:
            raise ImportError(
                "IsotonicCalibration is fitted by scikit-learn, which is not installed: "
                "pip install 'tfrec-llm[ranking]'"
            ) from error
        labels, probabilities, weights = calibration_data(labels, probabilities, weights)
        half = 0.5 / len(labels)
        curve = IsotonicRegression(y_min=half, y_max=1.0 - half, out_of_bounds="clip")
        curve.fit(probabilities, labels, sample_weight=weights)
        layer = cls(max(2, len(curve.X_thresholds_)))
        layer.build()
        # A curve of one point is flat.
        layer.knots.assign(np.broadcast_to(curve.X_thresholds_, layer.num_knots))
        layer.levels.assign(np.broadcast_to(curve.y_thresholds_, layer.num_knots))
        return layer

    def build(self, probabilities_shape=None):
        unchanged = np.linspace(0.0, 1.0, self.num_knots, dtype=np.float32)
        self.knots = self.add_constant("knots", unchanged)
        self.levels = self.add_constant("levels", unchanged)
        super().build(probabilities_shape)

    def calibrated(self, probabilities):
        flat = ops.reshape(probabilities, (-1,))
        right = ops.searchsorted(ops.convert_to_tensor(self.knots), flat, side="right")
        right = ops.clip(right, 1, self.num_knots - 1)
        low, high = (ops.take(self.knots, place, axis=0) for place in (right - 1, right))
        start, end = (ops.take(self.levels, place, axis=0) for place in (right - 1, right))
        width = high - low
        way = ops.clip((flat - low) / ops.where(width > 0, width, 1.0), 0.0, 1.0)
        # Rounding must not lift the end of one line above the start of the next.
        levels = ops.minimum(start + way * (end - start), end)
        return ops.reshape(levels, ops.shape(probabilities))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_knots": self.num_knots}
