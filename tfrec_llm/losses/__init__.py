"""Losses over a whole catalogue or a sample of it."""

from tfrec_llm.losses.catalog_cross_entropy import CatalogCrossEntropy
from tfrec_llm.losses.catalog_loss import CatalogLoss
from tfrec_llm.losses.contrastive_loss import ContrastiveLoss
from tfrec_llm.losses.retrieval_loss import RetrievalLoss
from tfrec_llm.losses.sampled_cross_entropy import SampledCrossEntropy

__all__ = [
    "CatalogCrossEntropy",
    "CatalogLoss",
    "ContrastiveLoss",
    "RetrievalLoss",
    "SampledCrossEntropy",
]
