"""Adam that updates only the rows a step has used."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.optimizers.row_gradients import AddsUpRows, is_row_gradient


@keras.saving.register_keras_serializable(package="tfrec_llm")
class LazyAdam(AddsUpRows, keras.optimizers.Adam):
    """Adam for large tables: a step touches only the rows that have a gradient.

    On TensorFlow the gradient of looked-up rows names those rows (`tf.IndexedSlices`). Rows that
    occur several times are added up first; then only they and their moments change, so a step
    costs the same however large the table is. Moments of other rows wait, where Adam's decay.
    Dense gradients get ordinary Adam.

    Where the gradient of a table arrives dense, on JAX or with `gradient_accumulation_steps`, a
    row stays untouched if its whole gradient is zero; the step then passes over all rows. The
    same holds for the rows of any other weight with two or more axes.

    `use_ema`, a constraint and Keras' `LossScaleOptimizer` work, but pass over all rows.

    Args:
        learning_rate: Float, schedule or function.
        beta_1: Decay of the mean of gradients.
        beta_2: Decay of the mean of squared gradients.
        epsilon: Keeps the division finite.
        amsgrad: Whether to divide by the largest mean of squares so far.
        **kwargs: Of `keras.optimizers.Optimizer`, as `clipnorm`. Clipping sees repeated rows
            added up.

    Attributes:
        takes_sparse_rows: True; tells models to give gradients of looked-up rows as they are.

    Raises:
        ValueError: For `weight_decay`, which would shrink every row at every step, and
            `loss_scale_factor`, which Keras does not apply to gradients of rows.

    Example:
        >>> table = keras.layers.Embedding(4, 2, embeddings_initializer="ones")
        >>> model = keras.Sequential([keras.Input((2,)), table, keras.layers.Flatten()])
        >>> model.compile(optimizer=LazyAdam(0.1), loss="mse", jit_compile=False)
        >>> _ = model.fit(np.array([[1, 1], [1, 3]]), np.zeros((2, 4)), verbose=0)
        >>> keras.ops.convert_to_numpy(table.embeddings)[:, 0].round(3)
        array([1. , 0.9, 1. , 0.9], dtype=float32)

    Reference:
        Adam, https://arxiv.org/abs/1412.6980
    """

    takes_sparse_rows = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        if kwargs.get("weight_decay") is not None:
            raise ValueError(
                "LazyAdam takes no weight_decay: it would change every row of a table at every "
                "step. Use keras.optimizers.AdamW if all rows shall shrink."
            )
        if kwargs.get("loss_scale_factor") is not None:
            raise ValueError(
                "LazyAdam takes no loss_scale_factor. Wrap it in "
                "keras.optimizers.LossScaleOptimizer, or train in bfloat16, which needs neither."
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            **kwargs,
        )

    def update_step(self, gradient, variable, learning_rate):
        gradient = self.all_reduced(gradient)
        if is_row_gradient(gradient):
            self._update_rows(gradient, variable, learning_rate)
        elif self._has_dense_rows(variable):
            self._update_used_rows(gradient, variable, learning_rate)
        else:
            super().update_step(gradient, variable, learning_rate)

    def _has_dense_rows(self, variable) -> bool:
        on_tensorflow = keras.backend.backend() == "tensorflow"
        return len(variable.shape) > 1 and (
            not on_tensorflow or bool(self.gradient_accumulation_steps)
        )

    def _update_used_rows(self, gradient, variable, learning_rate):
        """Updates the rows of a dense gradient that are not zero throughout."""
        used = ops.any(gradient != 0, axis=tuple(range(1, len(variable.shape))), keepdims=True)
        held = [variable, *self._moments(variable)]
        before = [ops.convert_to_tensor(each) + 0 for each in held]
        super().update_step(gradient, variable, learning_rate)
        for each, old in zip(held, before, strict=True):
            self.assign(each, ops.where(used, ops.convert_to_tensor(each), old))

    def _update_rows(self, gradient, variable, learning_rate):
        """Updates the rows that a `tf.IndexedSlices` names, and nothing else."""
        import tensorflow as tf

        dtype, rows = variable.dtype, gradient.indices
        values = tf.cast(gradient.values, dtype)

        def put(held, value):
            self.assign(held, tf.IndexedSlices(value, rows))
            return value

        held = self._moments(variable)
        mean, square, *largest = [tf.gather(each.value, rows) for each in held]
        mean = put(held[0], mean + (values - mean) * (1 - self.beta_1))
        square = put(held[1], square + (tf.square(values) - square) * (1 - self.beta_2))
        if largest:
            square = put(held[2], tf.maximum(largest[0], square))
        step = tf.cast(self.iterations + 1, dtype)
        correction_1 = 1 - tf.pow(tf.cast(self.beta_1, dtype), step)
        correction_2 = 1 - tf.pow(tf.cast(self.beta_2, dtype), step)
        rate = tf.cast(learning_rate, dtype) * tf.sqrt(correction_2) / correction_1
        change = rate * mean / (tf.sqrt(square) + self.epsilon)
        self.assign_sub(variable, tf.IndexedSlices(change, rows))

    def _moments(self, variable) -> list[Any]:
        index = self._get_variable_index(variable)
        held = [self._momentums[index], self._velocities[index]]
        return [*held, self._velocity_hats[index]] if self.amsgrad else held
