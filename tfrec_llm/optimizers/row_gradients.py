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


def add_up_all(grads: Any, variables: Any) -> list[Any]:
    """Adds up the repeated rows of every variable's gradient, in the variable's type."""
    return [
        add_up_repeated_rows(gradient, variable.dtype)
        for gradient, variable in zip(grads, variables, strict=True)
    ]


class AddsUpRows(keras.optimizers.Optimizer):
    """What an optimizer inherits, before another class of Keras, to see repeated rows added up.

    Clipping sees them so, too, and takes a row gradient's norm from its rows, where Keras would
    make a dense gradient for it.
    """

    def apply(self, grads, trainable_variables=None):
        variables = (
            self._trainable_variables if trainable_variables is None else trainable_variables
        )
        variables = list(variables)
        super().apply(add_up_all(grads, variables), variables)

    def all_reduced(self, gradient: Any) -> Any:
        """Adds up the rows that several replicas have sent; for the begin of `update_step`."""
        if is_row_gradient(gradient) and self._distribution_strategy.num_replicas_in_sync > 1:
            return add_up_repeated_rows(gradient)
        return gradient

    def _clip_gradients(self, grads):
        clipped = super()._clip_gradients(
            [gradient.values if is_row_gradient(gradient) else gradient for gradient in grads]
        )
        return [
            type(gradient)(values, gradient.indices, gradient.dense_shape)
            if is_row_gradient(gradient)
            else values
            for gradient, values in zip(grads, clipped, strict=True)
        ]
