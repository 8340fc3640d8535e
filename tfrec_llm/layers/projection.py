"""The dense maps inside a block."""

from typing import Any

import keras


def projection(owner: Any, units: int, name: str) -> keras.layers.Dense:
    """Returns a dense map with the initializer and the dtype policy of the layer it is part of.

    Args:
        owner: A layer with a `kernel_initializer`.
        units: Width of the output.
        name: Name of the map.
    """
    return keras.layers.Dense(
        units,
        # Each kernel draws its own values: a shared initializer object repeats them.
        kernel_initializer=owner.kernel_initializer.clone(),
        dtype=owner.dtype_policy,
        name=name,
    )
