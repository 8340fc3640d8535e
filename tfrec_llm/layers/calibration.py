"""What layers that make probabilities truer share."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.data.labels import as_labels, as_probabilities, as_weights
from tfrec_llm.errors import DataError


class Calibration(keras.layers.Layer):
    """Template of layers that map probabilities to probabilities and keep their order.

    They stand behind a model's output, so that what is saved, exported and served gives the
    calibrated numbers. They compute in float32 under every dtype policy, as small probabilities
    need its digits, and no training changes them.

    A subclass gives `calibrated`.

    Call arguments:
        probabilities: Float tensor of any shape, in 0..1.

    Returns:
        float32 tensor of the same shape, in 0..1.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def build(self, probabilities_shape=None):
        super().build(probabilities_shape)

    def add_constant(self, name: str, values: Any) -> Any:
        """Returns a float32 weight that is not trained."""
        return self.add_weight(
            name=name,
            shape=np.shape(values),
            dtype="float32",
            initializer=lambda shape, dtype: ops.convert_to_tensor(values, dtype),
            trainable=False,
            autocast=False,
        )

    def call(self, probabilities):
        return self.calibrated(ops.cast(probabilities, "float32"))

    def calibrated(self, probabilities):
        """Returns what float32 probabilities become."""
        raise NotImplementedError(f"{type(self).__name__} must define calibrated.")

    def compute_output_spec(self, probabilities):
        return keras.KerasTensor(probabilities.shape, "float32")


def calibration_data(
    labels: Any, probabilities: Any, weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels, probabilities as the layer sees them, and weights, float64 `[n]` each.

    Pairs without weight are left out.

    Raises:
        DataError: If there are no labels, lengths differ, a value is NaN or outside 0..1, or all
            labels are of one class.
    """
    labels = as_labels(labels)
    probabilities = as_probabilities(probabilities, len(labels))
    weights = as_weights(weights, len(labels))
    kept = weights > 0
    labels, probabilities, weights = labels[kept], probabilities[kept], weights[kept]
    if (labels == labels[0]).all():
        raise DataError(
            f"All {len(labels)} labels are {labels[0]:g}. A calibration compares clicks with what "
            "was not clicked: give it labels of both."
        )
    return labels, probabilities.astype(np.float32).astype(np.float64), weights
