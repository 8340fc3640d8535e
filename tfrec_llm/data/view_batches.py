"""Batches of two views a history."""

import dataclasses
from typing import Any

import numpy as np

from tfrec_llm.data.batches import PackedBatches, sequences_of
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.views import TwoViews
from tfrec_llm.data.vocabulary import Vocabulary


def contrastive_batches(
    data: BehaviorLog | UserSequences,
    *,
    vocabulary: Vocabulary | None = None,
    crop: float | None = 0.6,
    mask: float | None = 0.3,
    reorder: float | None = 0.6,
    **options: Any,
) -> PackedBatches:
    """Returns packed batches of two views a history, for `ContrastiveModel`.

    A history is told apart from the others of its batch, a thousand or so
    where histories are short: `batch_size` sets how many rows of them.

    Args:
        data: A log, or its sequences.
        vocabulary: Of a log's items; None makes one of the log.
        crop: See `TwoViews`.
        mask: See `TwoViews`.
        reorder: See `TwoViews`.
        **options: Of `PackedBatches`.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(80, 30).simulate()
        >>> inputs, targets = contrastive_batches(log, batch_size=2)[0]
        >>> inputs["items"].shape[0], bool((targets[0] == targets[1]).all())
        (4, True)
    """
    views = TwoViews(crop=crop, mask=mask, reorder=reorder)
    batches = PackedBatches(sequences_of(data, vocabulary), views, **options)
    # As many targets as any row has histories, known once these are packed.
    most = int(np.diff(batches.packing.row_starts).max())
    batches.objective = dataclasses.replace(views, max_histories=most)
    return batches
