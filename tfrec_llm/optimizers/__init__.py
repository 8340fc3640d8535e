"""Optimizers that Keras lacks: for large tables, short warm-ups and large batches."""

from tfrec_llm.optimizers.lamb import Lamb
from tfrec_llm.optimizers.lazy_adam import LazyAdam
from tfrec_llm.optimizers.lookahead import Lookahead
from tfrec_llm.optimizers.rectified_adam import RectifiedAdam

__all__ = ["Lamb", "LazyAdam", "Lookahead", "RectifiedAdam"]
