"""Keras layers: embeddings, the Transformer encoder, the Recommendation head."""

from tfrec_llm.layers.affinity import Affinity
from tfrec_llm.layers.compressed_table import CompressedTable
from tfrec_llm.layers.feature_embedding import FeatureEmbedding
from tfrec_llm.layers.feature_lookup import FeatureLookup
from tfrec_llm.layers.feed_forward import FeedForward
from tfrec_llm.layers.gated_residual import GatedResidual
from tfrec_llm.layers.interest_attention import InterestAttention
from tfrec_llm.layers.isotonic_calibration import IsotonicCalibration
from tfrec_llm.layers.item_contents import ItemContents
from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.layers.item_encoder import ItemEncoder
from tfrec_llm.layers.mixture_of_experts import MixtureOfExperts
from tfrec_llm.layers.prior_correction import PriorCorrection
from tfrec_llm.layers.recency_filter import RecencyFilter
from tfrec_llm.layers.recommendation import Recommendation
from tfrec_llm.layers.self_attention import SelfAttention
from tfrec_llm.layers.temperature_calibration import TemperatureCalibration
from tfrec_llm.layers.transformer_block import TransformerBlock
from tfrec_llm.layers.transformer_encoder import TransformerEncoder
from tfrec_llm.layers.user_embedding import UserEmbedding

__all__ = [
    "Affinity",
    "CompressedTable",
    "FeatureEmbedding",
    "FeatureLookup",
    "FeedForward",
    "GatedResidual",
    "InterestAttention",
    "IsotonicCalibration",
    "ItemContents",
    "ItemEmbedding",
    "ItemEncoder",
    "MixtureOfExperts",
    "PriorCorrection",
    "RecencyFilter",
    "Recommendation",
    "SelfAttention",
    "TemperatureCalibration",
    "TransformerBlock",
    "TransformerEncoder",
    "UserEmbedding",
]
