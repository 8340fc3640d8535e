"""From a behaviour log to batches: reading, cleaning, vocabularies, sequences, splits.

Nothing but the batches needs a deep-learning framework, so the rest runs in a plain
data job.
"""

import importlib
from typing import Any

_MODULES = {
    "AttributeBatches": "attribute_batches",
    "BehaviorLog": "behavior_log",
    "MaskedBehavior": "objectives",
    "NegativeSample": "negative_sampling",
    "NextBehavior": "objectives",
    "NextSessionBatches": "session_batches",
    "Catalogue": "feature_table",
    "ChangingShop": "changing_shop",
    "CleaningReport": "cleaning",
    "CleaningResult": "cleaning",
    "ConsistencyBatches": "consistency_batches",
    "DropDuplicates": "cleaning_steps",
    "DropNulls": "cleaning_steps",
    "DropRepeats": "cleaning_steps",
    "DropRobots": "cleaning_steps",
    "FeatureEncoding": "feature_encoding",
    "FeatureSpec": "feature_encoding",
    "FeatureTable": "feature_table",
    "ItemAttributes": "attributes",
    "JointBatches": "joint_batches",
    "KCore": "cleaning_steps",
    "PackedBatches": "batches",
    "PaddedBatches": "batches",
    "PairBatches": "pair_batches",
    "RankingBatches": "impression_batches",
    "Sessions": "sessions",
    "ShardedBatches": "sharded_batches",
    "Shards": "shards",
    "ShopSimulator": "simulator",
    "Split": "splits",
    "TimeRange": "cleaning_steps",
    "TwoViews": "views",
    "UserSequences": "sequences",
    "UserTable": "feature_table",
    "Vocabulary": "vocabulary",
    "clean": "cleaning",
    "contrastive_batches": "view_batches",
    "crop": "augmentation",
    "drop": "augmentation",
    "item_attributes": "attributes",
    "impression_split": "splits",
    "leave_last_out": "splits",
    "list_datasets": "datasets",
    "load": "datasets",
    "load_coupons": "impressions",
    "load_impressions": "impressions",
    "mask": "augmentation",
    "masked_batches": "batches",
    "next_batches": "batches",
    "next_session_batches": "session_batches",
    "padded_batches": "batches",
    "random_split": "splits",
    "sample_negatives": "negative_sampling",
    "reorder": "augmentation",
    "ranking_batches": "impression_batches",
    "split_sessions": "sessions",
    "temporal_split": "splits",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
