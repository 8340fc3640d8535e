"""Optimizers that Keras lacks, for large tables and short warm-ups."""

from tfrec_llm.optimizers.lazy_adam import LazyAdam

__all__ = ["LazyAdam"]
