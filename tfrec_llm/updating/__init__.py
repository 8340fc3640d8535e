"""Keeping a served model fresh: it goes on learning, and is replaced where that does good."""

import importlib
from typing import Any

_MODULES = {"Update": "challenge", "update": "challenge"}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
