"""Impression logs with fewer of the impressions that led to nothing."""

from dataclasses import dataclass

import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.labels import as_labels
from tfrec_llm.errors import DataError, EmptyLogError


@dataclass(frozen=True)
class NegativeSample:
    """An impression log with all positives and some of the negatives.

    Attributes:
        log: The impressions that are left, in their order.
        rate: Share of the negatives that are left, what `PriorCorrection` takes.
    """

    log: BehaviorLog
    rate: float


def sample_negatives(log: BehaviorLog, rate: float, *, seed: int = 0) -> NegativeSample:
    """Keeps every positive of an impression log and a share of the negatives, drawn evenly.

    Clicks are rare, and most of a training step goes to impressions that teach little. A model
    trained on the sample gives probabilities that are too high; `PriorCorrection(sample.rate)`
    behind it takes that back. Sample only what is trained on: metrics of a sample are no metrics.

    Args:
        log: Impressions with a `label` a row, in 0..1; above 0.5 is a positive.
        rate: Share of the negatives to keep, above 0 and at most 1; one stays at least.
        seed: Chooses them. Of the same seed, a smaller sample is part of a larger one.

    Returns:
        The sample, with the log's catalogue, users and history, and the rate that was met.

    Raises:
        ValueError: If `rate` is not above 0 and at most 1.
        EmptyLogError: If the log has no rows.
        MissingColumnError: If it has no labels.
        DataError: If a label is missing, NaN or outside 0..1, or none of them is negative.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"user": 7, "item": list("ABCAB"), "label": [0, 1, 0, 0, 0]})
        >>> shown = BehaviorLog.from_pandas(frame, time=None, label="label")
        >>> sample = sample_negatives(shown, 0.5)
        >>> len(sample.log), sample.rate
        (3, 0.5)

    Reference:
        He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}.")
    labels = log.column("label")
    if not len(log):
        raise EmptyLogError("The log has no rows to sample.")
    positive = as_labels(labels) > 0.5
    negatives = np.flatnonzero(~positive)
    if not len(negatives):
        raise DataError(
            f"All {len(log):,} labels are positive, so there are no negatives to sample. A log of "
            "clicks alone lacks what was shown and not clicked."
        )
    number = max(1, round(rate * len(negatives)))
    kept = positive.copy()
    kept[np.random.default_rng(seed).permutation(negatives)[:number]] = True
    return NegativeSample(log.take(kept), number / len(negatives))
