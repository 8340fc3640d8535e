"""Rows of a table, with a gradient that every optimizer takes rightly."""

from keras import ops


def table_rows(table, indexes):
    """Returns rows of a table; its gradient is dense and sums what a row is used for.

    TensorFlow's own gradient lists a row once for each use, and Keras'
    optimizers that square gradients then step too far: Adam and Adagrad about
    twice where a row is used twice.

    Args:
        table: Float tensor or variable `[items, emb_dim]`.
        indexes: Integer tensor of any shape.

    Returns:
        Float tensor of the shape of `indexes` with `emb_dim` behind it.

    Example:
        >>> rows = table_rows(keras.ops.eye(3), keras.ops.array([2, 0]))
        >>> keras.ops.convert_to_numpy(rows).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
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
