"""Putting a trained model into a shop: export and server."""

import importlib
from typing import Any

_MODULES = {
    "ExportedModel": "exported_model",
    "export_model": "export",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
