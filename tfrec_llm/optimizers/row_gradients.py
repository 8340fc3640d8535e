"""Gradients of a few rows of a table, as TensorFlow gives them for rows that were looked up."""

from typing import Any

import keras


def is_row_gradient(gradient: Any) -> bool:
    """Whether a gradient names the rows it is for (`tf.IndexedSlices`); never so on JAX."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.IndexedSlices)


def add_up_repeated_rows(gradient: Any, dtype: Any = None) -> Any:
    """Adds up what a row gradient holds for the same row; leaves other gradients alone.

    TensorFlow lists a row once for each time it was looked up. An update that squares or
    normalises gradients must see the sum.

    Args:
        gradient: A `tf.IndexedSlices`, a dense gradient or None.
        dtype: Type in which the rows are added up. None keeps their own.

    Returns:
        A `tf.IndexedSlices` in which each row occurs once, or `gradient` itself.
    """
    if not is_row_gradient(gradient):
        return gradient
    import tensorflow as tf

    values = gradient.values if dtype is None else tf.cast(gradient.values, dtype)
    rows, places = tf.unique(gradient.indices)
    sums = tf.math.unsorted_segment_sum(values, places, tf.size(rows))
    return tf.IndexedSlices(sums, rows, gradient.dense_shape)
