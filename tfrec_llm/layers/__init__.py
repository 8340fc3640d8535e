"""Keras layers: embeddings, the Transformer encoder, the Recommendation head."""

from tfrec_llm.layers.compressed_table import CompressedTable
from tfrec_llm.layers.feed_forward import FeedForward
from tfrec_llm.layers.gated_residual import GatedResidual
from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.layers.recommendation import Recommendation
from tfrec_llm.layers.self_attention import SelfAttention
from tfrec_llm.layers.transformer_block import TransformerBlock
from tfrec_llm.layers.transformer_encoder import TransformerEncoder
from tfrec_llm.layers.user_embedding import UserEmbedding

__all__ = [
    "CompressedTable",
    "FeedForward",
    "GatedResidual",
    "ItemEmbedding",
    "Recommendation",
    "SelfAttention",
    "TransformerBlock",
    "TransformerEncoder",
    "UserEmbedding",
]
