"""Weights that follow another optimizer's at a distance."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.optimizers.row_gradients import add_up_all
from tfrec_llm.optimizers.wrapping_optimizer import WrappingOptimizer


@keras.saving.register_keras_serializable(package="tfrec_llm")
class Lookahead(WrappingOptimizer):
    """Lets another optimizer explore, and every few steps goes part of the way after it.

    When a period begins the weights are remembered. After `sync_period` steps of the other
    optimizer they become `remembered + slow_step_size * (weights - remembered)`. Only the first
    and last step of a period pass over all weights, so that a `LazyAdam` inside stays lazy in
    the others. Rows that occur repeatedly in the gradient of a table are added up for any inner
    optimizer.

    Learning rate, clipping, weight decay and the like are the inner optimizer's. For float16
    wrap this one in `keras.optimizers.LossScaleOptimizer`, which `compile` does by itself.

    Args:
        inner_optimizer: The optimizer that takes the steps, or its name.
        sync_period: Steps of a period.
        slow_step_size: Share of the way that is kept at its end, from 0 to 1.
        name: Name of the optimizer.

    Raises:
        ValueError: If `sync_period` or `slow_step_size` is out of its range, or if
            `inner_optimizer` is a `LossScaleOptimizer`.

    Example:
        >>> optimizer = Lookahead(keras.optimizers.SGD(1.0), sync_period=2)
        >>> weight = keras.Variable([10.0])
        >>> for _ in range(2):
        ...     optimizer.apply([keras.ops.array([1.0])], [weight])
        >>> keras.ops.convert_to_numpy(weight)  # half the way from 10 to 8
        array([9.], dtype=float32)

    Reference:
        Lookahead Optimizer: k steps forward, 1 step back, https://arxiv.org/abs/1907.08610
    """

    def __init__(
        self,
        inner_optimizer: Any,
        *,
        sync_period: int = 6,
        slow_step_size: float = 0.5,
        name: str | None = None,
    ):
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        if sync_period < 1 or not 0.0 <= slow_step_size <= 1.0:
            raise ValueError(
                "sync_period must be 1 or more and slow_step_size lie in 0..1, "
                f"got {sync_period} and {slow_step_size}."
            )
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "Lookahead would count the steps that LossScaleOptimizer leaves out. "
                "Wrap them the other way round: LossScaleOptimizer(Lookahead(optimizer))."
            )
        super().__init__(inner_optimizer, name=name)
        self.sync_period = sync_period
        self.slow_step_size = slow_step_size

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._slow = self.add_optimizer_variables(variables, "slow")

    def apply(self, grads, trainable_variables=None):
        variables = (
            self._trainable_variables if trainable_variables is None else trainable_variables
        )
        variables = list(variables)
        self.build(variables)
        grads = add_up_all(grads, variables)
        self._between_periods(lambda variable, slow: (slow, variable))
        self.inner_optimizer.apply(grads, variables)
        self._between_periods(lambda variable, slow: (variable, self._blend(variable, slow)))

    def _blend(self, variable, slow):
        return slow + self.slow_step_size * (ops.convert_to_tensor(variable) - slow)

    def _between_periods(self, change):
        """Where a period ends and the next begins, assigns what `change` says.

        Args:
            change: Of a weight and what is remembered of it, to one of the two and its new value.
        """
        between = ops.equal(self.iterations % self.sync_period, 0)
        pairs = [
            (variable, slow)
            for variable, slow in zip(self._trainable_variables, self._slow, strict=True)
            if slow is not None
        ]
        if keras.backend.backend() == "tensorflow":
            self._assign_on_tensorflow(between, pairs, change)
            return
        for pair in pairs:
            target, value = change(*pair)
            target.assign(ops.where(between, ops.convert_to_tensor(value), target.value))

    def _assign_on_tensorflow(self, between, pairs, change):
        """Assigns in a branch of its own, so that other steps read no weight for it."""
        import tensorflow as tf

        def assign(variable, slow):
            target, value = change(variable, slow)
            target.assign(value)

        def on_every_replica(strategy, between):
            def assign_all():
                for pair in pairs:
                    variable, slow = (getattr(each, "_value", each) for each in pair)
                    strategy.extended.update(variable, assign, args=(slow,), group=False)
                return tf.no_op()

            tf.cond(strategy.experimental_local_results(between)[0], assign_all, tf.no_op)

        tf.__internal__.distribute.interim.maybe_merge_call(
            on_every_replica, self._distribution_strategy, between
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "sync_period": self.sync_period,
            "slow_step_size": self.slow_step_size,
        }
