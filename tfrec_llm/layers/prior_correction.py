"""Probabilities of a model that was trained on a sample of the negatives."""

from typing import Any

import keras

from tfrec_llm.layers.calibration import Calibration


@keras.saving.register_keras_serializable(package="tfrec_llm")
class PriorCorrection(Calibration):
    """Takes back what sampled negatives did to probabilities: `p' = p / (p + (1 - p) / rate)`.

    To a model that saw all clicks and a tenth of the other impressions, the odds of a click look
    ten times as high as they are. The correction is exact where the sample was drawn by chance,
    as `sample_negatives` draws it. The order of pairs stays.

    Args:
        rate: Share of the negatives that were kept, above 0 and at most 1.

    Call arguments:
        probabilities: Float tensor of any shape, in 0..1.

    Returns:
        float32 tensor of the same shape, in 0..1.

    Raises:
        ValueError: If `rate` is not above 0 and at most 1.

    Example:
        >>> PriorCorrection(rate=0.25)(np.array([0.0, 0.5, 1.0])).numpy()
        array([0. , 0.2, 1. ], dtype=float32)

    Reference:
        He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014
    """

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 < rate <= 1:
            raise ValueError(
                f"rate is the share of negatives that were kept, above 0 and at most 1, got {rate}."
            )
        self.rate = rate

    def calibrated(self, probabilities):
        return probabilities / (probabilities + (1.0 - probabilities) / self.rate)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate}
