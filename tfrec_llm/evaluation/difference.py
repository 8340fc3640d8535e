"""How far two evaluations lie apart."""

from dataclasses import dataclass

import numpy as np

from tfrec_llm.evaluation.bootstrap import percentile_interval


@dataclass(frozen=True)
class Difference:
    """How far one scorer is ahead of another, over the same users or impressions.

    Attributes:
        value: Difference of the metric.
        low: Lower end of its bootstrap interval; above 0 the lead is more than chance.
        high: Upper end; of a loss, a lead is more than chance with `high` below 0.
    """

    value: float
    low: float
    high: float

    @classmethod
    def from_resamples(cls, value: float, resampled: np.ndarray, confidence: float) -> "Difference":
        """Makes one of the difference in every resample, float `[resamples]`."""
        low, high = percentile_interval(resampled[:, None], confidence)[0]
        return cls(float(value), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"
