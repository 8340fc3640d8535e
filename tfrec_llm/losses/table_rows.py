"""Rows of a table, with a gradient that every optimizer takes rightly."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_sparse: ContextVar[bool] = ContextVar("tfrec_llm_sparse_row_gradients", default=False)


def table_rows(table, indexes):
    """Returns rows of a table; its gradient is dense and sums what a row is used for.

    TensorFlow's own gradient lists a row once for each use, and Keras'
    optimizers that square gradients then step too far: Adam and Adagrad about
    twice where a row is used twice. `trained_rows` has TensorFlow's own for
    optimizers that add up repeated rows.

    Args:
        table: Float tensor or variable `[items, emb_dim]`, or a `RowTable`.
        indexes: Integer tensor of any shape.

    Returns:
        Float tensor of the shape of `indexes` with `emb_dim` behind it.

    Example:
        >>> rows = table_rows(keras.ops.eye(3), keras.ops.array([2, 0]))
        >>> keras.ops.convert_to_numpy(rows).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if isinstance(table, RowTable):
        return table.rows(indexes)
    num_rows, width = table.shape

    @ops.custom_gradient
    def taken(table):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            flat = ops.reshape(upstream, (-1, width))
            return ops.segment_sum(flat, ops.reshape(indexes, (-1,)), num_segments=num_rows)

        return ops.take(table, indexes, axis=0), gradient

    # The value of a variable: TensorFlow's custom gradients do not take the variable itself.
    return taken(ops.cast(table, table.dtype))


@contextlib.contextmanager
def sparse_row_gradients(active: bool) -> Iterator[None]:
    """Has item tables give gradients of the rows that were used alone, while it lasts.

    A step then computes nothing of a table's size. Only optimizers that add
    up repeated rows (`takes_sparse_rows`) take such gradients rightly. On
    other backends than TensorFlow nothing changes: they know no such gradients.

    Args:
        active: Whether to do so at all.

    Example:
        >>> with sparse_row_gradients(False):
        ...     sparse_row_gradients_active()
        False
    """
    token = _sparse.set(active and keras.backend.backend() == "tensorflow")
    try:
        yield
    finally:
        _sparse.reset(token)


def sparse_row_gradients_active() -> bool:
    """Returns whether item tables are to be read as `RowTable`s."""
    return _sparse.get()


class RowTable:
    """A table of which only rows are read, so that nothing is computed of its size.

    Args:
        read: Returns the rows `[..., emb_dim]` of an integer tensor of any
            shape.
        shape: Number of rows and their width.

    Attributes:
        shape: As given.
    """

    def __init__(self, read: Callable[[Any], Any], shape: tuple[int, int]):
        self.rows = read
        self.shape = shape


def trained_rows(variable, indexes):
    """Returns rows of a trained table with the gradient that is in force.

    That is `table_rows`' own, or one of the rows alone while
    `sparse_row_gradients` lasts.

    Args:
        variable: Keras variable `[items, emb_dim]`.
        indexes: Integer tensor of any shape.
    """
    if not sparse_row_gradients_active():
        return table_rows(variable, indexes)
    import tensorflow as tf

    # Of the variable itself: its value would be a copy of all rows, once single ones changed.
    return tf.gather(variable.value, indexes)
