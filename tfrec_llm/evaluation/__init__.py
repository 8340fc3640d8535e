"""One protocol over the whole catalogue, and reports that say how sure they are."""

import importlib
from typing import Any

_MODULES = {
    "Blend": "blend",
    "ClickReport": "click_report",
    "Comparison": "comparison",
    "CompressedScorer": "compressed_scorer",
    "Difference": "difference",
    "EvaluatedImpressions": "click_report",
    "EvaluatedUsers": "report",
    "MetricReport": "metric_report",
    "ModelScorer": "model_scorer",
    "ProbabilityBlend": "probability_blend",
    "Ranking": "protocol",
    "RankingEvaluation": "callback",
    "RankingTask": "protocol",
    "Report": "report",
    "Scorer": "scorer",
    "bootstrap_means": "bootstrap",
    "compare": "comparison",
    "evaluate_probabilities": "click_report",
    "plot_reliability": "reliability_plot",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
