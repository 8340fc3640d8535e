"""What the models share that put a small head on the encoder."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.models.behavior_encoder import BehaviorEncoder, hidden_at
from tfrec_llm.training.memory import keep_freed_memory
from tfrec_llm.training.replicated_training import ReplicatedTraining
from tfrec_llm.training.tracing import build_for_training
from tfrec_llm.training.update_order import keep_update_order


class EncoderTask(ReplicatedTraining):
    """Template of models that ask the encoder's states something else than the next item.

    A subclass makes its layers in `build_head` and calls them in `head`. The
    encoder stays as causal as it is: one that is undecided looks both ways
    until `NextBehaviorModel` takes it up.

    Args:
        encoder: The `BehaviorEncoder` to train.

    Call arguments:
        inputs: Batch, see `BehaviorEncoder`, with `target_positions`
            `[rows, targets]`: where the states are asked. Without, that is
            each row's newest behaviour, and there is one target a row.

    Returns:
        What `head` makes of the states.
    """

    def __init__(self, encoder: BehaviorEncoder, **kwargs: Any):
        # The encoder may compute in half precision; probabilities and losses stay in float32.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.encoder = encoder

    def build_head(self) -> None:
        """Makes and builds the layers of the head."""

    def head(self, hidden):
        """Returns the output for hidden states `[rows, targets, emb_dim]`."""
        raise NotImplementedError(f"{type(self).__name__} must define head.")

    def head_shape(self) -> tuple[int, ...]:
        """Returns the shape of the output of one target."""
        raise NotImplementedError(f"{type(self).__name__} must define head_shape.")

    def asking(self, inputs):
        """Returns the batch that asks at each row's newest behaviour."""
        return {**inputs, "target_positions": newest_of_rows(inputs["segments"])}

    def build(self, inputs_shape=None):
        if not self.encoder.built:
            self.encoder.build(inputs_shape)
        self.build_head()
        self.built = True

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any):
        """Configures training; takes what `keras.Model.compile` takes.

        Args:
            optimizer: Keras optimizer or its name.
            loss: Loss over targets; None stands for `default_loss()`.
            **kwargs: As in `keras.Model.compile`. Metrics belong into
                `weighted_metrics`: places without a target weigh nothing.
        """
        keep_update_order()
        keep_freed_memory()
        if self.encoder.dtype_policy.name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.get(optimizer))
        super().compile(
            optimizer=optimizer, loss=self.default_loss() if loss is None else loss, **kwargs
        )

    def default_loss(self) -> Any:
        """Returns the loss of `compile()`."""
        raise NotImplementedError(f"{type(self).__name__} must define default_loss.")

    def compile_from_config(self, config):
        # Keras skips this where compile() is overridden, and a loaded model could not train on.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        build_for_training(self)
        return super().make_train_function(force)

    def call(self, inputs, training=None):
        asked = inputs if "target_positions" in inputs else self.asking(inputs)
        hidden = self.encoder(asked, training=training)
        return self.head(hidden_at(hidden, asked["target_positions"]))

    def compute_output_spec(self, inputs, training=None):
        asked = inputs.get("target_positions")
        targets = 1 if asked is None else asked.shape[1]
        shape = (inputs["items"].shape[0], targets, *self.head_shape())
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config | {"encoder": encoder_of(config["encoder"], custom_objects)})


def encoder_of(encoder, custom_objects=None):
    """Returns an encoder, which may be given serialised."""
    if isinstance(encoder, BehaviorEncoder):
        return encoder
    return keras.saving.deserialize_keras_object(encoder, custom_objects=custom_objects)


def newest_of_rows(segments):
    """Returns where the newest behaviour of each row stands, one user a row.

    Args:
        segments: Integer tensor `[rows, length]`, 0 where padded on either side.

    Returns:
        int32 tensor `[rows, 1]`.
    """
    present = ops.cast(segments > 0, "int32")
    places = ops.arange(1, ops.shape(present)[1] + 1, dtype="int32")
    return ops.argmax(present * places, axis=1)[:, None]
