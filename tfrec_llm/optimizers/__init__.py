"""Optimizers that Keras lacks: for large tables, warm-ups, large batches, fine-tuning."""

from tfrec_llm.optimizers.lamb import Lamb
from tfrec_llm.optimizers.layerwise_decay import LayerwiseDecay
from tfrec_llm.optimizers.lazy_adam import LazyAdam
from tfrec_llm.optimizers.lookahead import Lookahead
from tfrec_llm.optimizers.rectified_adam import RectifiedAdam

__all__ = ["Lamb", "LayerwiseDecay", "LazyAdam", "Lookahead", "RectifiedAdam"]
