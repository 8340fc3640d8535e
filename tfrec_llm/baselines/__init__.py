"""The floors: what counting reaches without a model, and classical models on what is counted."""

from tfrec_llm.baselines.baseline import Baseline
from tfrec_llm.baselines.click_floor import ClickFloor
from tfrec_llm.baselines.impression_features import ImpressionFeatures
from tfrec_llm.baselines.item_neighbors import ItemNeighbors
from tfrec_llm.baselines.markov_chain import MarkovChain
from tfrec_llm.baselines.popularity import Popularity
from tfrec_llm.baselines.sequential_rules import SequentialRules

__all__ = [
    "Baseline",
    "ClickFloor",
    "ImpressionFeatures",
    "ItemNeighbors",
    "MarkovChain",
    "Popularity",
    "SequentialRules",
]
