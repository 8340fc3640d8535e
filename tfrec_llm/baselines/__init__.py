"""The floors: what counting reaches without a model."""

from tfrec_llm.baselines.baseline import Baseline
from tfrec_llm.baselines.item_neighbors import ItemNeighbors
from tfrec_llm.baselines.markov_chain import MarkovChain
from tfrec_llm.baselines.popularity import Popularity
from tfrec_llm.baselines.sequential_rules import SequentialRules

__all__ = ["Baseline", "ItemNeighbors", "MarkovChain", "Popularity", "SequentialRules"]
