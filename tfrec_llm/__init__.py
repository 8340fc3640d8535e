"""Pre-trained behaviour models for e-commerce recommendation, in Keras 3.

Everything is imported when first used, so reading and preparing data loads no
deep-learning framework.
"""

import importlib
import os
import platform
from typing import Any

__version__ = "0.1.0"

# oneDNN's matrix products take a third less time. TensorFlow leaves them off on processors
# without AVX-512; it asks when it is imported itself, so this comes too late after that.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_PACKAGES = (
    "baselines",
    "data",
    "errors",
    "evaluation",
    "layers",
    "losses",
    "metrics",
    "models",
    "monitoring",
    "optimizers",
    "reranking",
    "serving",
    "training",
    "tuning",
    "updating",
)
_NAMES = {
    "ItemEmbedding": "layers",
    "Recommendation": "layers",
    "Recommender": "recommender",
    "TransformerEncoder": "layers",
    "UserEmbedding": "layers",
    "evaluate": "training",
    "train_epoch": "training",
    "train_step": "training",
}
__all__ = [*_PACKAGES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
