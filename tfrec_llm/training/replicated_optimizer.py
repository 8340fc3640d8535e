"""Gradients that are summed over the replicas before the optimizer sees them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from tfrec_llm.optimizers.row_gradients import add_up_repeated_rows


def reduce_gradients_first(optimizer: Any) -> None:
    """Has a Keras optimizer clip and accumulate the gradients of the global batch.

    Under a strategy of TensorFlow, Keras 3.15 clips each replica's gradient before the sum, so
    that a limit of 1 gives a step of 2 on two replicas, and its accumulation of gradients fails
    with "merge_call". Here the sum comes first, and the choice between accumulating and stepping
    is made outside the replicas, where TensorFlow allows it.

    Args:
        optimizer: The optimizer, or one around others, such as `LossScaleOptimizer`.

    Raises:
        ValueError: For `ema_overwrite_frequency`, which fails in the same way.
    """
    for each in _that_step(optimizer):
        if each.ema_overwrite_frequency:
            raise ValueError(
                "ema_overwrite_frequency does not work under a distribution strategy. Leave it "
                "out: use_ema=True then overwrites the weights once, at the end of fit(). Or use "
                "Recommender(weight_averaging=...), or the callback keras.callbacks."
                "SwapEMAWeights."
            )
        if getattr(each, "_reduces_first", False):
            continue
        each._reduces_first = True
        apply = each._backend_apply_gradients
        each._backend_apply_gradients = functools.partial(_apply_reduced, each, apply)
        # What Keras would sum is summed already.
        each._all_reduce_sum_gradients = list


def _that_step(optimizer: Any) -> Iterator[Any]:
    """Gives the optimizers that update weights, inside those that are around others."""
    if hasattr(optimizer, "inner_optimizer"):
        yield from _that_step(optimizer.inner_optimizer)
    elif isinstance(getattr(optimizer, "optimizers", None), list):
        for each in optimizer.optimizers:
            yield from _that_step(each)
    else:
        yield optimizer


def _apply_reduced(
    optimizer: Any, apply: Callable[..., None], gradients: list[Any], variables: list[Any]
) -> None:
    """Stands for the optimizer's `_backend_apply_gradients`, in a replica."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    # Several replicas send the same row.
    gradients = [add_up_repeated_rows(gradient) for gradient in gradients]
    if optimizer.gradient_accumulation_steps:
        _accumulate(optimizer, gradients, list(variables))
    else:
        apply(gradients, variables)


def _accumulate(optimizer: Any, gradients: list[Any], variables: list[Any]) -> None:
    """Adds gradients up; at the last step of a round, steps by their mean."""
    import tensorflow as tf

    num_steps = optimizer.gradient_accumulation_steps
    held = [
        optimizer._accumulated_gradients[optimizer._get_variable_index(variable)]
        for variable in variables
    ]

    def step(gradients):
        means = [
            (tf.convert_to_tensor(gradient) + accumulator.value) / num_steps
            for gradient, accumulator in zip(gradients, held, strict=True)
        ]
        means = optimizer._clip_gradients(means)
        optimizer._apply_weight_decay(variables)
        optimizer._backend_update_step(means, variables, optimizer.learning_rate)
        optimizer._backend_reset_gradient_accumulators()

    def keep(gradients):
        for gradient, accumulator in zip(gradients, held, strict=True):
            accumulator.assign(tf.convert_to_tensor(gradient) + accumulator.value)

    def outside_replicas(strategy, gradients):
        def on_each(function):
            strategy.extended.call_for_each_replica(function, args=(gradients,))
            return tf.no_op()

        is_last = tf.equal((tf.convert_to_tensor(optimizer._iterations) + 1) % num_steps, 0)
        tf.cond(is_last, lambda: on_each(step), lambda: on_each(keep))

    tf.distribute.get_replica_context().merge_call(outside_replicas, args=(gradients,))
    if optimizer.use_ema:
        optimizer._update_model_variables_moving_average(optimizer._trainable_variables)
