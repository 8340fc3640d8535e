"""LAMB as published: the weight decay is part of the step that is scaled."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.optimizers.row_gradients import AddsUpRows


@keras.saving.register_keras_serializable(package="tfrec_llm")
class Lamb(AddsUpRows, keras.optimizers.Lamb):
    """Adam for large batches: each weight moves by a share of its own norm.

    `keras.optimizers.Lamb` takes the weight decay as a step of its own. Here it belongs to the
    step whose norm is compared with the weight's, as in the paper: `u = adam + weight_decay * w`,
    `w -= learning_rate * |w| / |u| * u`. Without weight decay the two are one. Repeated rows of
    a gradient of looked-up rows are added up first; every row is updated.

    Args:
        learning_rate: Float, schedule or function.
        beta_1: Decay of the mean of gradients.
        beta_2: Decay of the mean of squared gradients.
        epsilon: Keeps the division finite.
        weight_decay: Optional factor of the weight in the step;
            `exclude_from_weight_decay` spares weights from it.
        **kwargs: Of `keras.optimizers.Optimizer`, as `clipnorm`.

    Example:
        >>> weight = keras.Variable([3.0, 4.0])
        >>> Lamb(0.01).apply([keras.ops.array([1.0, 1.0])], [weight])
        >>> keras.ops.convert_to_numpy(weight).round(3)  # by 1 % of its norm of 5
        array([2.965, 3.965], dtype=float32)

    Reference:
        Large Batch Optimization for Deep Learning, https://arxiv.org/abs/1904.00962
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            **kwargs,
        )

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(self.all_reduced(gradient), variable.dtype)
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        step = ops.cast(self.iterations + 1, variable.dtype)
        mean = mean / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        square = square / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        update = mean / (ops.sqrt(square) + self.epsilon)
        weight = ops.convert_to_tensor(variable)
        if self.weight_decay is not None and self._use_weight_decay(variable):
            update = update + self.weight_decay * weight
        weight_norm, update_norm = (ops.sqrt(ops.sum(ops.square(x))) for x in (weight, update))
        both = ops.logical_and(weight_norm > 0, update_norm > 0)
        ratio = ops.where(both, weight_norm / ops.where(both, update_norm, 1.0), 1.0)
        self.assign_sub(variable, ratio * ops.cast(learning_rate, variable.dtype) * update)

    def _apply_weight_decay(self, variables):
        """Does nothing: the decay is in the step."""
