"""Training: the functions of a training loop, callbacks, schedules, precision."""

import importlib
from typing import Any

_MODULES = {
    "BestWeights": "best_weights",
    "ClickEvaluation": "click_evaluation",
    "ScoringCopy": "scoring_copy",
    "TrainingCheckpoint": "checkpoint",
    "evaluate": "click_training",
    "fast_precision": "precision",
    "keep_freed_memory": "memory",
    "keep_update_order": "update_order",
    "learning_rate_schedule": "schedule",
    "train_epoch": "click_training",
    "train_step": "click_training",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
