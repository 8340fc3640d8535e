"""Trains on one replica and on two, and prints what came out as JSON.

Two devices have to be asked for before TensorFlow starts, so this runs in a process of its own.
"""

import contextlib
import json

import keras
import numpy as np
import tensorflow as tf

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
# Tiny steps are not worth the time that TensorFlow optimises their graphs for.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

import tfrec_llm as tr  # noqa: E402
from tfrec_llm.models import (  # noqa: E402
    BehaviorEncoder,
    ClickModel,
    ContrastiveModel,
    MaskedBehaviorModel,
    NextBehaviorModel,
)

rng = np.random.default_rng(0)
lengths = rng.integers(1, 9, 180)
lengths[:2] = 8
sequences = tr.data.UserSequences(
    rng.integers(3, 20, lengths.sum()).astype("int32"),
    np.append(0, np.cumsum(lengths)),
    times=np.arange(lengths.sum()),
)


def encoder():
    return BehaviorEncoder(20, 8, num_layers=1, max_length=8, dropout=0.0)


def impressions():
    users = rng.integers(0, 180, 180)
    return tr.data.RankingBatches(
        sequences,
        users=users,
        times=sequences.offsets[users] + 3,
        candidates=rng.integers(3, 20, 180),
        labels=rng.integers(0, 2, 180),
        weights=rng.integers(1, 4, 180),
        batch_size=9,
        shuffle=True,
    )


def trained(strategy, make, optimizer, batches, options, evaluated):
    """Returns weights and logs after 20 steps or a few more."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make()
        model.build()
        draw = np.random.default_rng(1)
        for weight in model.trainable_weights:
            weight.assign(draw.normal(0.0, 0.2, weight.shape))
        model.compile(optimizer(), **options())
    batches.set_epoch(0)
    epochs = -(-20 // len(batches))
    logs = model.fit(batches, epochs=epochs, shuffle=False, verbose=0).history
    if name == "click":
        logs |= model.evaluate(batches, return_dict=True, verbose=0)
    return model, int(model.optimizer._iterations.numpy()), logs


CASES = {
    # Rows are odd in number: the replicas have different numbers of rows and of targets.
    "masked": (
        lambda: MaskedBehaviorModel(encoder()),
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3, clipnorm=0.1),
        tr.data.masked_batches(sequences, batch_size=3),
        lambda: {"loss": tr.losses.CatalogCrossEntropy(num_chunks=1)},
    ),
    "next": (
        lambda: NextBehaviorModel(encoder()),
        lambda: tr.optimizers.LazyAdam(0.01, epsilon=1e-5, global_clipnorm=0.3),
        tr.data.next_batches(sequences, batch_size=3),
        lambda: {"loss": tr.losses.SampledCrossEntropy(8, seed=3), "steps_per_execution": 2},
    ),
    "click": (
        lambda: ClickModel(encoder(), hid_dim=4),
        lambda: keras.optimizers.AdamW(0.01, epsilon=1e-5, clipvalue=0.01),
        impressions(),
        lambda: {"weighted_metrics": ["auc"]},
    ),
    # Its negatives are the views of other users, on the other replica, too.
    "contrastive": (
        lambda: ContrastiveModel(encoder()),
        lambda: keras.optimizers.Adam(0.01, epsilon=1e-5),
        tr.data.contrastive_batches(sequences, max_length=8, batch_size=25),
        dict,
    ),
}

strategy = tr.training.distribution_strategy()
found = {"replicas": strategy.num_replicas_in_sync}
for name, (make, optimizer, batches, options) in CASES.items():
    arguments = make, optimizer, batches, options, name == "click"
    one, _, logs = trained(None, *arguments)
    two, steps, logs_of_two = trained(strategy, *arguments)
    pairs = zip(one.get_weights(), two.get_weights(), strict=True)
    found[name] = {
        "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
        "steps": steps,
        "logs": [logs, logs_of_two],
    }
    if name == "click":
        asked, *_ = batches[0]
        found["click"]["predicted"] = [
            np.asarray(model.predict_on_batch(asked)).tolist() for model in (one, two)
        ]


def told(function):
    """Returns what a function returns, or what its error says."""
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def compiled(optimizer="sgd", **options):
    with strategy.scope():
        model = NextBehaviorModel(encoder())
    model.compile(optimizer, **options)


found["refused"] = {
    "jit_compile": told(lambda: compiled(jit_compile=True)),
    "ema_overwrite_frequency": told(
        lambda: compiled(keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2))
    ),
    "used optimizer": told(lambda: compiled(one.optimizer)),
}


def line(optimizer=None, loss="mse", **options):
    """Returns a model of Keras' own: one weight, 0 at first."""
    with strategy.scope():
        weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), weight])
        model.compile(keras.optimizers.SGD(1.0, **(optimizer or {})), loss, **options)
    return model


def step(rows=2, **options):
    """Returns the weight after one step towards targets of which the first is 9, the last 0."""
    model = line(**options)
    targets, weights = np.linspace(9.0, 0.0, rows)[:, None], np.linspace(3.0, 1.0, rows)
    model.fit(np.ones((rows, 1)), targets, sample_weight=weights, batch_size=rows, verbose=0)
    return float(model.get_weights()[0][0, 0])


def words(model_class):
    """Trains a model whose inputs are words."""
    with strategy.scope():
        word = keras.Input((1,), dtype="string")
        number = keras.layers.StringLookup(vocabulary=["a", "b"])(word)
        vector = keras.layers.Flatten()(keras.layers.Embedding(3, 1)(number))
        model = model_class(word, vector)
        model.compile("sgd", "mse", weighted_metrics=["mse"])
    data = tf.data.Dataset.from_tensors((tf.constant([["a"], ["b"]]), tf.zeros((2, 1))))
    return model.fit(data, verbose=0).history["loss"]


class Words(tr.training.ReplicatedTraining, keras.Model):
    """A model of one's own that trains as the library's do."""


found["words"] = told(lambda: words(Words))
weighted = keras.losses.MeanSquaredError("mean_with_sample_weight")
found["faults"] = {
    "the mean of means": told(lambda: step(loss=weighted)),
    "clipping before the sum": told(
        lambda: step(loss=keras.losses.MeanSquaredError("sum"), optimizer={"clipnorm": 1.0})
    ),
    "accumulation": told(lambda: step(optimizer={"gradient_accumulation_steps": 2})),
    "overwriting by averages": told(
        lambda: step(optimizer={"use_ema": True, "ema_overwrite_frequency": 2})
    ),
    "several steps a call": told(lambda: step(steps_per_execution=2)),
    "XLA": told(lambda: step(jit_compile=True)),
    "an odd first batch": told(lambda: step(rows=3, weighted_metrics=["mse"])),
    "strings": told(lambda: words(keras.Model)),
    "predict_on_batch": told(lambda: len(line().predict_on_batch(np.ones((3, 1))))),
}
print("FOUND", json.dumps(found, default=float))
