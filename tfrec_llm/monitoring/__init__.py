"""Watching what a served model does: quality, drift, anomalies, alarms."""

import importlib
from typing import Any

_MODULES = {
    "Alarm": "report",
    "Anomaly": "anomalies",
    "Drift": "drift",
    "Limits": "traffic_watch",
    "MonitoringReport": "report",
    "Outcomes": "quality",
    "ServedLog": "served_log",
    "find_anomalies": "anomalies",
    "monitor": "traffic_watch",
    "population_stability": "drift",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
