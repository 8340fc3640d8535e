"""Several objectives on one encoder at once."""

from collections.abc import Mapping
from typing import Any

import keras

from tfrec_llm.losses.replicas import sum_over_replicas
from tfrec_llm.training.memory import keep_freed_memory
from tfrec_llm.training.replicated_training import ReplicatedTraining
from tfrec_llm.training.update_order import keep_update_order


@keras.saving.register_keras_serializable(package="tfrec_llm")
class JointModel(ReplicatedTraining):
    """Trains several models that share one encoder, by the weighted sum of their losses.

    Train it on `tfrec_llm.data.JointBatches`, whose names are those of the
    models. The logs show the loss of each. What was trained are the models
    themselves: `models["next"]` recommends as if it had been trained alone.

    Args:
        models: Models around one `BehaviorEncoder`, by name; the first is the
            one that answers when the joint model is called on plain histories.

    Call arguments:
        inputs: A dict of a batch a model; or one batch for the first model.

    Returns:
        A dict of an output a model; or that of the first model.

    Raises:
        ValueError: If there are none, or they have encoders of their own.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = JointModel(
        ...     {
        ...         "next": tfrec_llm.models.NextBehaviorModel(encoder),
        ...         "contrastive": tfrec_llm.models.ContrastiveModel(encoder),
        ...     }
        ... )
        >>> model.compile("adam", loss_weights={"contrastive": 0.1})
    """

    def __init__(self, models: Mapping[str, keras.Model], **kwargs: Any):
        # The models compute as their encoder does.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if not models:
            raise ValueError("JointModel needs models, by the names of their objectives.")
        self.models = dict(models)
        self.encoder = self._first.encoder
        others = [name for name, model in models.items() if model.encoder is not self.encoder]
        if others:
            raise ValueError(
                f"The models {others} have encoders of their own. Make all models with one "
                "BehaviorEncoder: it is what they train together."
            )
        self.loss_weights = dict.fromkeys(models, 1.0)
        self.trackers = {name: keras.metrics.Mean(name=f"{name}_loss") for name in models}

    @property
    def _first(self) -> keras.Model:
        return next(iter(self.models.values()))

    def build(self, inputs_shape=None):
        for model in self.models.values():
            if not model.built:
                model.build()
        self.built = True

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        """Configures training; takes what `keras.Model.compile` takes, but metrics.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Losses by the name of their model; those not named take
                their own default.
            loss_weights: What losses are multiplied by, by the name of their
                model; 1 for those not named.
            **kwargs: As in `keras.Model.compile`.

        Raises:
            ValueError: If a name is not that of a model, or metrics are given.
        """
        for given in (loss or {}, loss_weights or {}):
            unknown = set(given) - set(self.models)
            if unknown:
                raise ValueError(f"There is no model {sorted(unknown)}, only {list(self.models)}.")
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise ValueError(
                "JointModel takes no metrics. Evaluate its models, or pass the callback "
                "tfrec_llm.evaluation.RankingEvaluation to fit() for ranking metrics."
            )
        for name, model in self.models.items():
            model.compile(loss=(loss or {}).get(name))
        self.loss_weights = dict.fromkeys(self.models, 1.0) | dict(loss_weights or {})
        keep_update_order()
        keep_freed_memory()
        if self.encoder.dtype_policy.name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.get(optimizer))
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self):
        losses = {name: model.loss for name, model in self.models.items()}
        return super().get_compile_config() | {
            "loss": keras.saving.serialize_keras_object(losses),
            "loss_weights": dict(self.loss_weights),
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None):
        if "items" in inputs:
            return self._first(inputs, training=training)
        return {name: model(inputs[name], training=training) for name, model in self.models.items()}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        total = 0.0
        for name, model in self.models.items():
            weights = (sample_weight or {}).get(name)
            loss = model.compute_loss(x[name], y[name], y_pred[name], weights, training)
            self.trackers[name].update_state(sum_over_replicas(loss))
            total = total + self.loss_weights[name] * loss
        return total

    def compute_output_spec(self, inputs, training=None):
        if "items" in inputs:
            return self._first.compute_output_spec(inputs)
        return {
            name: model.compute_output_spec(inputs[name]) for name, model in self.models.items()
        }

    def get_config(self) -> dict[str, Any]:
        models = {
            name: keras.saving.serialize_keras_object(model) for name, model in self.models.items()
        }
        for model in models.values():
            # The joint model keeps the losses, and builds all models around one encoder.
            for name in ("compile_config", "build_config"):
                model.pop(name, None)
        return super().get_config() | {"models": models}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        models: dict[str, Any] = {}
        for name, serialized in config["models"].items():
            encoder = models[next(iter(models))].encoder if models else None
            models[name] = _model_around(encoder, serialized, custom_objects)
        return cls(**config | {"models": models})


def _model_around(encoder, serialized, custom_objects):
    """Returns a model of its serialised form, around an encoder that is there already."""
    if encoder is None:
        return keras.saving.deserialize_keras_object(serialized, custom_objects=custom_objects)
    model_class = keras.saving.get_registered_object(
        serialized["registered_name"], custom_objects=custom_objects
    )
    options = {
        name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
        for name, value in serialized["config"].items()
        if name != "encoder"
    }
    return model_class(encoder, **options)
