"""Gradients on any backend."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def value_and_gradients(
    function: Callable[..., Any], *arrays: Any, compiled: bool = False
) -> tuple[float, list[np.ndarray]]:
    """Returns a scalar function's value and its gradient to each of its arguments.

    Args:
        function: Of as many tensors as there are arrays, to a scalar.
        *arrays: Float arrays or tensors.
        compiled: Whether it runs as a graph; on TensorFlow one that does not know the arguments'
            first dimension.
    """
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    if keras.backend.backend() == "jax":
        import jax

        both = jax.value_and_grad(function, argnums=tuple(range(len(tensors))))
        value, gradients = (jax.jit(both) if compiled else both)(*tensors)
    else:
        import tensorflow as tf

        def both(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            return value, [tf.convert_to_tensor(g) for g in tape.gradient(value, tensors)]

        if compiled:
            unknown = [tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in tensors]
            both = tf.function(both, input_signature=unknown)
        value, gradients = both(*tensors)
    gradients = [ops.convert_to_numpy(ops.cast(g, "float32")) for g in gradients]
    return float(value), gradients
