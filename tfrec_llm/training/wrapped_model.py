"""Models that train another one with a further loss."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tfrec_llm.losses.replicas import replica_share
from tfrec_llm.training.replicated_training import ReplicatedTraining
from tfrec_llm.training.tracing import build_for_training


class WrappedModel(ReplicatedTraining):
    """Template of models around a model that add to its loss in training, and to nothing else.

    Calls, metrics and `evaluate` are those of the model inside; it stays usable by itself and is
    compiled along. A subclass writes `extra_loss`.

    Args:
        model: The Keras model to train.

    Raises:
        NotImplementedError: On other backends than TensorFlow and JAX.
    """

    def __init__(self, model: keras.Model, **kwargs: Any):
        if keras.backend.backend() not in ("tensorflow", "jax"):
            raise NotImplementedError(
                f"{type(self).__name__} works on TensorFlow and JAX, not on "
                f"{keras.backend.backend()}."
            )
        # The model inside casts by its own policy.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.model = model

    def extra_loss(self, x, y, y_pred, sample_weight):
        """Returns what is added to the loss of a training batch; on several replicas, a share."""
        raise NotImplementedError(f"{type(self).__name__} must define extra_loss.")

    def inputs_of(self, x):
        """Returns the part of a batch that the model inside predicts from."""
        return x

    def build(self, inputs_shape=None):
        self.built = True  # the model inside is built when it is called, or was by itself

    def call(self, inputs, training=None):
        return self.model(self.inputs_of(inputs), training=training)

    def predict(self, *args, **kwargs):
        """Returns what the model inside predicts."""
        return self.model.predict(*args, **kwargs)

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any):
        """Configures training, that of the model inside, too; see its own `compile`."""
        self.model.compile(optimizer=optimizer, loss=loss, **kwargs)
        for name in ("loss_weights", "metrics", "weighted_metrics"):
            kwargs.pop(name, None)
        kwargs["jit_compile"] = self.model.jit_compile
        super().compile(optimizer=self.model.optimizer, **kwargs)
        # One loss and one set of metrics for both, which either resets; not tracked as a layer's.
        shared = ("loss", "_compile_loss", "_compile_metrics")
        self.__dict__.update({name: getattr(self.model, name) for name in shared})

    def make_train_function(self, force=False):
        if self.model.built:
            build_for_training(self)
        return super().make_train_function(force)

    def get_compile_config(self):
        return self.model.get_compile_config()

    def compile_from_config(self, config):
        # Keras skips this where compile() is overridden, and a loaded model could not train on.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # Read first: every further call of the model clears them.
        regularisation = [ops.sum(each) for each in self.losses]
        loss = self.data_loss(x, y, y_pred, sample_weight, training=training)
        if training:
            loss = loss + ops.cast(self.extra_loss(x, y, y_pred, sample_weight), loss.dtype)
        for each in regularisation:
            loss = loss + ops.cast(replica_share(each), loss.dtype)
        return loss

    def data_loss(self, x, y, y_pred, sample_weight, *, training=True):
        """Returns the loss of the model inside, without regularisers and what layers add."""
        loss = self.model.compute_loss(
            x=self.inputs_of(x),
            y=y,
            y_pred=y_pred,
            sample_weight=sample_weight,
            training=training,
        )
        for each in self.model.losses:
            loss = loss - ops.cast(replica_share(ops.sum(each)), loss.dtype)
        return loss

    def without_traces(self, values: Sequence[tuple[Any, Any]] = ()) -> keras.StatelessScope:
        """Returns a scope in which the model is called once more, and no state changes.

        Args:
            values: Pairs of a variable and what stands for it in the scope.
        """
        state = [*self.variables, *self.metrics_variables]
        held = [(variable, ops.convert_to_tensor(variable)) for variable in state]
        # Of two values for a variable the later one holds.
        return keras.StatelessScope(state_mapping=[*held, *values])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(**config | {"model": model})


def gradients_of(function: Callable[[list[Any]], Any], tensors: list[Any]) -> list[Any]:
    """Returns a scalar function's gradients to a list of tensors, zero where there are none."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(tensors)
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value = function(tensors)
    gradients = tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # Rows that were looked up several times are added up.
    return [tf.convert_to_tensor(gradient) for gradient in gradients]
