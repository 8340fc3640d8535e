"""Training: the functions of a training loop, callbacks, schedules, precision."""

import importlib
from typing import Any

_MODULES = {
    "AdversarialTraining": "adversarial_training",
    "BestWeights": "best_weights",
    "ClickEvaluation": "click_evaluation",
    "ConsistencyTraining": "consistency_training",
    "GradualUnfreezing": "gradual_unfreezing",
    "PseudoLabels": "pseudo_labelling",
    "ReplicatedTraining": "replicated_training",
    "ScoringCopy": "scoring_copy",
    "TrainingCheckpoint": "checkpoint",
    "TrainingMeasures": "measures",
    "add_lora": "low_rank",
    "distribution_scope": "distribution",
    "distribution_strategy": "distribution",
    "evaluate": "click_training",
    "fast_precision": "precision",
    "freeze": "fine_tuning",
    "freeze_deep": "fine_tuning",
    "keep_freed_memory": "memory",
    "keep_update_order": "update_order",
    "learning_rate_schedule": "schedule",
    "merge_lora": "low_rank",
    "pseudo_labels": "pseudo_labelling",
    "tracked": "tracking",
    "train_epoch": "click_training",
    "train_step": "click_training",
    "unfreeze": "fine_tuning",
    "unfreeze_deep": "fine_tuning",
    "variable_depths": "fine_tuning",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
