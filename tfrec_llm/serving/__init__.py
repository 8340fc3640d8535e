"""Putting a trained model into a shop: export, index, histories, server."""

import importlib
from typing import Any

_MODULES = {
    "ApproximateIndex": "approximate_index",
    "CatalogueWatch": "catalogue_watch",
    "Event": "histories",
    "ExactIndex": "item_index",
    "ExportedModel": "exported_model",
    "HistoryStore": "histories",
    "ItemIndex": "item_index",
    "ModelVersions": "model_versions",
    "Recorder": "recording",
    "RedisHistories": "redis_histories",
    "SQLiteHistories": "sqlite_histories",
    "ServerOptions": "options",
    "TrainingSnapshot": "snapshot",
    "UserKey": "user_key",
    "create_app": "app",
    "export_model": "export",
    "export_ranking_model": "ranking_export",
    "export_with_recommenders": "tensorflow_recommenders",
    "recommenders_index": "tensorflow_recommenders",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
