"""The behaviour encoder, the models that pre-train it, and those of clicks and conversions."""

from tfrec_llm.models.attribute_model import AttributeModel
from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.behavior_model import BehaviorModel
from tfrec_llm.models.click_model import ClickModel
from tfrec_llm.models.collaborative_filtering import (
    MatrixFactorization,
    NeuralCollaborativeFiltering,
)
from tfrec_llm.models.contrastive_model import ContrastiveModel
from tfrec_llm.models.conversion_model import ConversionModel
from tfrec_llm.models.joint_model import JointModel
from tfrec_llm.models.masked_attribute_model import MaskedAttributeModel
from tfrec_llm.models.masked_behavior_model import MaskedBehaviorModel
from tfrec_llm.models.multi_task_model import MultiTaskModel
from tfrec_llm.models.next_behavior_model import NextBehaviorModel
from tfrec_llm.models.next_session_model import NextSessionModel
from tfrec_llm.models.ranking_model import RankingModel

__all__ = [
    "AttributeModel",
    "BehaviorEncoder",
    "BehaviorModel",
    "ClickModel",
    "ContrastiveModel",
    "ConversionModel",
    "JointModel",
    "MaskedAttributeModel",
    "MaskedBehaviorModel",
    "MatrixFactorization",
    "MultiTaskModel",
    "NeuralCollaborativeFiltering",
    "NextBehaviorModel",
    "NextSessionModel",
    "RankingModel",
]
