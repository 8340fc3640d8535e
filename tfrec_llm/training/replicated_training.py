"""Training on several replicas that gives what training on one gives."""

from typing import Any

import keras

from tfrec_llm.data.even_batches import EvenRows
from tfrec_llm.losses.replicas import gather_from_replicas, sum_over_replicas
from tfrec_llm.training.replicated_optimizer import reduce_gradients_first
from tfrec_llm.training.resumable_training import ResumableTraining
from tfrec_llm.training.workers import num_workers, own_batches


class ReplicatedTraining(ResumableTraining):
    """What a model inherits to train under a `tf.distribute` strategy as it does on one device.

    A model that is made in `strategy.scope()` trains by plain `fit`; each replica takes its part
    of every global batch, and loss, gradients and metrics are those of the whole batch, however
    many rows and targets a replica has. Without a strategy this class changes nothing; on JAX,
    inside `distribution_scope`, it fills the rows of batches up until the devices can share them.

    Keras 3.15 on TensorFlow 2.21 is mended here, each fault for its reason:

    - It takes the mean of the replicas' means. Here `compute_loss` returns a replica's share, and
      the shares add up to the loss of the global batch.
    - It clips gradients before their sum, and cannot accumulate them; see
      `reduce_gradients_first`.
    - It builds a model from the mean of the replicas' batches, which odd batches and strings do
      not have. Here one replica's batch gives the shapes.
    - It averages logs over an axis that they lack with several workers. Here they are the first
      replica's; those of an epoch are of all replicas, as Keras reads them from the metrics.
    - It has every worker take a part of each batch, also where workers read different data. Here
      `ShardedBatches(worker=..., num_workers=...)` are trained on whole; see `own_batches`.
    - `steps_per_execution` above 1 fails in a loop of TensorFlow's. Here it is one of Python's.
    - `predict_on_batch` gives every row once for each replica. Here one device computes it.

    `jit_compile=True` is refused: XLA cannot compile sums over replicas that share a process.
    """

    @property
    def replica_strategy(self) -> Any:
        """The `tf.distribute.Strategy` in whose scope the model was made, or None."""
        return getattr(self, "_distribute_strategy", None)

    def compile(self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any):
        """Configures training; takes what `keras.Model.compile` takes.

        Raises:
            ValueError: Under a strategy, for `jit_compile=True` and an optimizer with
                `ema_overwrite_frequency` or one that was used outside.
        """
        strategy = self.replica_strategy
        if strategy is None:
            super().compile(optimizer, *args, **kwargs)
            return
        if kwargs.get("jit_compile") is True:
            raise ValueError(
                "jit_compile=True does not work under a distribution strategy: XLA cannot compile "
                "the sums over replicas. Leave it out; on a GPU mixed_bfloat16 is what saves most "
                "of the time."
            )
        kwargs["jit_compile"] = False
        with strategy.scope():
            optimizer = _made_in_scope(keras.optimizers.get(optimizer), strategy)
            if optimizer is not None:
                reduce_gradients_first(optimizer)
            super().compile(optimizer, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Returns loss and metrics; takes and returns what `keras.Model.evaluate` does."""
        return super().evaluate(self.shared_out(x), *args, **kwargs)

    def shared_out(self, data, class_weight=None):
        """Returns data whose batches the devices share, or each worker has of its own."""
        batches = getattr(data, "batches", data)
        if num_workers(self) > 1 and getattr(batches, "num_workers", 1) > 1:
            return own_batches(data, self.replica_strategy, class_weight)
        if keras.backend.backend() != "jax" or not isinstance(data, keras.utils.PyDataset):
            return super().shared_out(data, class_weight)
        distribution = keras.distribution.distribution()
        if distribution is None or distribution.batch_dim_name is None:
            return data
        mesh = distribution.device_mesh
        devices = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
        return data if devices == 1 else EvenRows(data, devices)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss; under a strategy, a replica's share of that of the global batch."""
        if self.replica_strategy is not None and not self._losses_are_sums():
            # Keras divides the loss of the whole batch by the number of replicas.
            y, y_pred, sample_weight = gather_from_replicas((y, y_pred, sample_weight))
        return super().compute_loss(x, y, y_pred, sample_weight, training=training)

    def train_step(self, *args, **kwargs):
        if self.replica_strategy is None:
            return super().train_step(*args, **kwargs)
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(*args, **kwargs)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        return self._logs(x, y, y_pred, sample_weight, loss)

    def test_step(self, *args, **kwargs):
        if self.replica_strategy is None:
            return super().test_step(*args, **kwargs)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(*args, **kwargs)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self._logs(x, y, y_pred, sample_weight, loss)

    def predict_on_batch(self, x):
        if self.replica_strategy is None:
            return super().predict_on_batch(x)
        import tensorflow as tf

        if self._one_device_predict is None:
            self._one_device_predict = tf.function(
                lambda batch: self.predict_step((batch,)), reduce_retracing=True
            )
        return keras.tree.map_structure(keras.ops.convert_to_numpy, self._one_device_predict(x))

    _one_device_predict: Any = None

    def _logs(self, x, y, y_pred, sample_weight, loss):
        """Takes a step's loss and outputs into the metrics and returns a replica's values."""
        rows = keras.ops.shape(keras.tree.flatten(x)[0])[0]
        self._loss_tracker.update_state(sum_over_replicas(loss), sample_weight=rows)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _losses_are_sums(self) -> bool:
        """Returns whether shares add up by themselves, which they do where Keras takes sums."""
        reductions = {
            getattr(each, "reduction", None) for each in keras.tree.flatten(self.loss or [])
        }
        if "sum" in reductions and len(reductions) > 1:
            raise ValueError(
                'Under a distribution strategy, losses are either all of reduction "sum" or none.'
            )
        return reductions == {"sum"}

    def _make_function(self, step_function, **options):
        strategy = self.replica_strategy
        if strategy is None:
            return super()._make_function(step_function, **options)
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def one_step(data):
            logs = strategy.run(step_function, args=(data,))
            return keras.tree.map_structure(lambda value: _of_one_replica(strategy, value), logs)

        one_step = self._autoconvert_optionals(one_step)

        functions: dict[str, Any] = {}

        def function_for(spec):
            if self.run_eagerly:
                return one_step
            if repr(spec) not in functions:
                # Shapes of the whole data set: by those of its batches, the step would be traced
                # again for every combination of rows that the replicas get.
                shapes = {} if spec is None else {"input_signature": [spec]}
                functions[repr(spec)] = tf.function(one_step, reduce_retracing=True, **shapes)
            return functions[repr(spec)]

        def function(iterator):
            step = function_for(getattr(iterator, "element_spec", None))
            logs = None
            for _ in range(self.steps_per_execution):
                try:
                    data = next(iterator)
                except (StopIteration, tf.errors.OutOfRangeError):
                    if logs is None:
                        raise
                    break
                logs = step(data)
            return logs

        return function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = self.replica_strategy
        if strategy is None:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
            self._build_metrics(iterator)
            return
        if iterator is not None:
            data_batch = next(next(iter(iterator))[2])
        data_batch = keras.tree.map_structure(
            lambda value: _of_one_replica(strategy, value), data_batch
        )
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    def _build_metrics(self, iterator: Any) -> None:
        """Makes the metrics' variables before the step is traced, which is then traced once."""
        metrics = self._compile_metrics
        dataset = getattr(iterator, "_distributed_dataset", None)
        if not self.built or metrics is None or metrics.built or dataset is None:
            return
        spec = dataset.element_spec
        if all(hasattr(each, "shape") for each in keras.tree.flatten(spec)):
            self._symbolic_build(data_batch=spec)


def _of_one_replica(strategy: Any, value: Any) -> Any:
    """Returns what the first replica of this process has of a value."""
    return strategy.experimental_local_results(value)[0]


def _made_in_scope(optimizer: Any, strategy: Any) -> Any:
    """Returns an optimizer whose variables are the strategy's, a new one where it is not."""
    if optimizer is None or optimizer._distribution_strategy is strategy:
        return optimizer
    if optimizer.built:
        raise ValueError(
            "The optimizer was used outside the distribution strategy. Make a new one."
        )
    return keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
