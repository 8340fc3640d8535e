"""Ranking and click metrics and what lists are like beyond accuracy, in NumPy."""

from tfrec_llm.metrics.beyond_accuracy import (
    catalogue_coverage,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_bias,
)
from tfrec_llm.metrics.click import accuracy, auc
from tfrec_llm.metrics.ranking import (
    RANKING_METRICS,
    average_precision,
    hit_rate,
    mrr,
    ndcg,
    precision,
    recall,
)
from tfrec_llm.metrics.top_k import target_ranks, top_k

__all__ = [
    "RANKING_METRICS",
    "accuracy",
    "auc",
    "average_precision",
    "catalogue_coverage",
    "exposure",
    "gini",
    "hit_rate",
    "intra_list_diversity",
    "mrr",
    "ndcg",
    "novelty",
    "popularity_bias",
    "precision",
    "recall",
    "target_ranks",
    "top_k",
]
