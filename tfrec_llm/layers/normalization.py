"""The norm of a block."""

from typing import Any

import keras


def normalization(owner: Any, name: str) -> keras.layers.LayerNormalization:
    """Returns a layer normalisation with the dtype policy of the layer it is part of.

    Args:
        owner: The layer.
        name: Name of the norm.
    """
    return keras.layers.LayerNormalization(epsilon=1e-6, dtype=owner.dtype_policy, name=name)
