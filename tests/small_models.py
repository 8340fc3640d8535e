"""Small models and batches that many tests train."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.models import BehaviorEncoder

SMALL = {"vocab_size": 20, "emb_dim": 8, "num_layers": 2, "max_length": 8, "dropout": 0.0}


@keras.saving.register_keras_serializable(package="tests")
class SmallClickModel(keras.Model):
    """The probability of a click from the mean of the encoder's states."""

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.head = keras.layers.Dense(1, "sigmoid", dtype="float32", name="head")

    def build(self, inputs_shape=None):
        if not self.encoder.built:
            self.encoder.build()
        self.head.build((None, self.encoder.emb_dim))
        self.built = True

    def call(self, inputs, training=None):
        present = ops.cast(inputs["segments"] > 0, "float32")[..., None]
        hidden = ops.cast(self.encoder(inputs, training=training), "float32") * present
        return self.head(ops.sum(hidden, axis=1) / ops.maximum(ops.sum(present, axis=1), 1.0))

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((inputs["items"].shape[0], 1))

    def get_config(self):
        return super().get_config() | {"encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"encoder": keras.saving.deserialize_keras_object(config["encoder"])})


def click_model(*, seed: int = 0, **options: Any) -> SmallClickModel:
    """Returns a built model; its weights are wide, so that what a step does shows."""
    keras.utils.set_random_seed(seed)
    model = SmallClickModel(BehaviorEncoder(**SMALL | options))
    model.build()
    rng = np.random.default_rng(seed)
    model.set_weights([weight + rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def click_data(rows: int = 32, *, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns histories of 1 to 8 behaviours, padded on the left, and labels `[rows, 1]`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, rows)[:, None]
    age = np.arange(8)[::-1][None]
    present = age < lengths
    batch = {
        "items": np.where(present, rng.integers(3, 20, (rows, 8)), 0),
        "segments": present,
        "positions": np.where(present, age, 0),
    }
    labels = rng.integers(0, 2, (rows, 1)).astype("float32")
    return {name: values.astype("int32") for name, values in batch.items()}, labels


def weights_of(model: keras.Model) -> list[np.ndarray]:
    """Returns copies of all weights."""
    return [np.array(ops.convert_to_numpy(weight)) for weight in model.weights]
