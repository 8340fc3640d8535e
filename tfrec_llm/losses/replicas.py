"""Sums over the replicas of a distribution strategy, for losses that are of the global batch."""

from typing import Any

import keras


def num_replicas() -> int:
    """Returns how many replicas share a global batch; 1 without a strategy of TensorFlow."""
    context = _replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def sum_over_replicas(value: Any) -> Any:
    """Returns the sum of a tensor over all replicas, in each of them; no gradient passes.

    Outside a replica, and on backends that split batches by themselves, that is the tensor.

    Args:
        value: Float tensor.

    Example:
        >>> float(sum_over_replicas(keras.ops.ones(())))
        1.0
    """
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    value = tf.stop_gradient(value)
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def gather_from_replicas(values: Any) -> Any:
    """Returns tensors of the global batch, in each replica; gradients go to where they belong.

    Args:
        values: A tensor `[rows, ...]`, or a structure of them and of None; replicas may hold
            different numbers of rows.

    Example:
        >>> gather_from_replicas({"items": keras.ops.ones((2, 3))})["items"].shape
        TensorShape([2, 3])
    """
    if num_replicas() == 1:
        return values
    import tensorflow as tf

    context = tf.distribute.get_replica_context()

    def gathered(value):
        if value is None:
            return None
        value = tf.convert_to_tensor(value)
        # TensorFlow forgets the widths that it knew.
        return tf.ensure_shape(context.all_gather(value, axis=0), [None, *value.shape[1:]])

    return keras.tree.map_structure(gathered, values)


def replica_share(loss: Any) -> Any:
    """Returns a replica's share of a loss that every replica has computed of the global batch."""
    replicas = num_replicas()
    return loss if replicas == 1 else loss / replicas


def _replica_context() -> Any:
    """Returns TensorFlow's replica context, or None where a step is not split by it."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()
