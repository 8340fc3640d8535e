"""An optimizer's moments, kept from one training to the next."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def optimizer_state(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """Returns the values of an optimizer's variables, in their order, but for the learning rate.

    Args:
        optimizer: A built one.
    """
    return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in _kept(optimizer)]


def restore_optimizer(
    optimizer: keras.optimizers.Optimizer, state: Sequence[np.ndarray], variables: Sequence[Any]
) -> bool:
    """Gives a new optimizer the moments of an old one of the same kind.

    Where a table has grown, moments of its old rows are kept and those of new rows are zero.

    Args:
        optimizer: The new one.
        state: Of `optimizer_state`.
        variables: What will be trained.

    Returns:
        Whether they fit; if not, the optimizer starts anew.

    Example:
        >>> table = keras.Variable(np.ones((2, 3), "float32"))
        >>> old, new = keras.optimizers.Adam(), keras.optimizers.Adam()
        >>> old.apply([keras.ops.ones((2, 3))], [table])
        >>> grown = keras.Variable(np.ones((4, 3), "float32"))
        >>> restore_optimizer(new, optimizer_state(old), [grown])
        True
        >>> keras.ops.convert_to_numpy(new.variables[2])[:, 0].round(2)
        array([0.1, 0.1, 0. , 0. ], dtype=float32)
    """
    optimizer.build(variables)
    kept = _kept(optimizer)
    grown = [
        _grown(values, tuple(variable.shape)) for values, variable in zip(state, kept, strict=False)
    ]
    if len(kept) != len(state) or any(values is None for values in grown):
        return False
    for variable, values in zip(kept, grown, strict=True):
        variable.assign(values)
    return True


def _kept(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    return [
        variable
        for variable in optimizer.variables
        if variable.path.rpartition("/")[2] != "learning_rate"
    ]


def _grown(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns values with further rows of zeros; None where the shapes do not fit."""
    if values.shape == shape:
        return values
    if len(values.shape) != len(shape) or not shape or values.shape[1:] != shape[1:]:
        return None
    if values.shape[0] > shape[0]:
        return None
    added = np.zeros((shape[0] - values.shape[0], *shape[1:]), values.dtype)
    return np.concatenate([values, added])
