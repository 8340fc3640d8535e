"""The workers that train a model together."""

from collections.abc import Sequence
from typing import Any

from tfrec_llm.training.batch_reading import BatchReading


def num_workers(model: Any) -> int:
    """Returns how many processes train a Keras model."""
    resolver = _cluster_resolver(model)
    jobs = {} if resolver is None else resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, [])) for job in ("chief", "worker")))


def is_first_worker(model: Any) -> bool:
    """Returns whether this process is the one that writes files."""
    resolver = _cluster_resolver(model)
    if resolver is None or num_workers(model) == 1:
        return True
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def workers_agree(model: Any, numbers: Sequence[int]) -> bool:
    """Returns whether all workers have the same whole numbers; all must ask at the same time."""
    if num_workers(model) == 1:
        return True
    import tensorflow as tf

    strategy = model.distribute_strategy

    @tf.function
    def sums():
        def on_replica():
            mine = tf.constant(list(numbers), tf.float64)
            values = tf.concat([mine, mine * mine, [1.0]], axis=0)
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    *found, count = sums().numpy().tolist()
    totals, squares = found[: len(numbers)], found[len(numbers) :]
    # Only for equal numbers is the mean of the squares the square of the mean.
    return all(
        count * square == total * total for total, square in zip(totals, squares, strict=True)
    )


def own_batches(data: Any, strategy: Any, class_weight: dict[int, float] | None = None) -> Any:
    """Returns batches that a worker reads for itself, as Keras trains on them whole.

    Keras takes batches for those of all workers and leaves each its part, so that the other rows
    would be lost.

    Args:
        data: A `keras.utils.PyDataset` that gives each worker other rows.
        strategy: The `MultiWorkerMirroredStrategy`.
        class_weight: As `fit` takes it.

    Raises:
        ValueError: If a worker has several devices, or the data are shared out to another number
            of workers.
    """
    shared_by = getattr(data, "batches", data).num_workers
    if strategy.num_replicas_in_sync != shared_by:
        raise ValueError(
            f"The shards are shared out to {shared_by} workers, and {strategy.num_replicas_in_sync}"
            " devices train. Pass num_workers=their number, and start a worker for every device."
        )

    class OwnBatches(BatchReading):
        def get_tf_dataset(self):
            dataset = super().get_tf_dataset()
            return strategy.distribute_datasets_from_function(lambda context: dataset)

    return OwnBatches(data, class_weight)


def _cluster_resolver(model: Any) -> Any:
    """Returns what knows the other workers of the model's strategy, or None."""
    strategy = getattr(model, "_distribute_strategy", None)
    return getattr(strategy, "cluster_resolver", None)
