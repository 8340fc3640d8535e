"""The behaviour encoder and the models that pre-train it."""

from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.behavior_model import BehaviorModel
from tfrec_llm.models.masked_behavior_model import MaskedBehaviorModel
from tfrec_llm.models.next_behavior_model import NextBehaviorModel
from tfrec_llm.models.next_session_model import NextSessionModel

__all__ = [
    "BehaviorEncoder",
    "BehaviorModel",
    "MaskedBehaviorModel",
    "NextBehaviorModel",
    "NextSessionModel",
]
