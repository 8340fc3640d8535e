"""Ranking and click metrics and what lists are like beyond accuracy, in NumPy and Keras."""

from typing import Any

from tfrec_llm.metrics.beyond_accuracy import (
    catalogue_coverage,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_bias,
)
from tfrec_llm.metrics.click import accuracy, auc, log_loss, normalized_entropy
from tfrec_llm.metrics.grouped_auc import GroupedAuc, grouped_auc
from tfrec_llm.metrics.ranking import (
    RANKING_METRICS,
    average_precision,
    hit_rate,
    mrr,
    ndcg,
    precision,
    recall,
)
from tfrec_llm.metrics.reliability import (
    ReliabilityBins,
    calibration_error,
    reliability_bins,
)
from tfrec_llm.metrics.top_k import target_ranks, top_k

__all__ = [
    "RANKING_METRICS",
    "GroupedAuc",
    "ReliabilityBins",
    "StreamingTopK",
    "accuracy",
    "auc",
    "average_precision",
    "calibration_error",
    "catalogue_coverage",
    "exposure",
    "gini",
    "grouped_auc",
    "hit_rate",
    "intra_list_diversity",
    "log_loss",
    "mrr",
    "ndcg",
    "normalized_entropy",
    "novelty",
    "popularity_bias",
    "precision",
    "recall",
    "reliability_bins",
    "target_ranks",
    "top_k",
]


def __getattr__(name: str) -> Any:
    if name == "StreamingTopK":  # the one that needs Keras
        from tfrec_llm.metrics.streaming_top_k import StreamingTopK

        return StreamingTopK
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
