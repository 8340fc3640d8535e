"""Search for good settings with KerasTuner (`pip install 'tfrec-llm[tuning]'`)."""

import importlib
from typing import Any

_MODULES = {
    "RankingHyperModel": "ranking_hypermodel",
    "RecommenderTuner": "recommender_tuner",
    "Trials": "trials",
    "masked_space": "spaces",
    "next_space": "spaces",
    "ranking_space": "spaces",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        try:
            return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        except ModuleNotFoundError as error:
            if error.name != "keras_tuner":
                raise
            raise ImportError("Tuning needs KerasTuner: pip install 'tfrec-llm[tuning]'") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
