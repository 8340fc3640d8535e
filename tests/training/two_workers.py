"""Trains on shards that two workers share out; run by a worker, prints what came out as JSON."""

import json
import sys

import keras
import numpy as np

import tfrec_llm as tr
from tfrec_llm.data import NextBehavior, ShardedBatches, Shards


def part(shards: Shards, worker: int) -> ShardedBatches:
    """What a worker reads: half of the rows of every step."""
    return ShardedBatches(
        shards,
        NextBehavior(),
        max_length=8,
        row_length=16,
        batch_size=4,
        worker=worker,
        num_workers=2,
    )


def trained(strategy, shards: Shards, batches: keras.utils.PyDataset) -> dict:
    """Trains on batches; returns losses, steps and weights."""
    keras.utils.set_random_seed(0)
    with tr.training.distribution_scope(strategy):
        encoder = tr.models.BehaviorEncoder(
            shards.vocabulary.size, 8, num_layers=1, max_length=8, dropout=0.0
        )
        model = tr.models.NextBehaviorModel(encoder)
    loss = tr.losses.CatalogCrossEntropy(num_chunks=1)
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-5), loss=loss)
    losses = model.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
    return {
        "losses": losses,
        "steps": int(model.optimizer.iterations.numpy()),
        "weights": [weight.tolist() for weight in model.get_weights()],
    }


def fault_of_keras(strategy) -> str:
    """Returns what `fit` of a model of Keras' own fails with."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    try:
        model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    except Exception as error:
        return str(error)
    return ""


if __name__ == "__main__":
    # First of all, as TensorFlow has to know the workers before it computes anything.
    strategy = tr.training.distribution_strategy("multi_worker")
    shards = Shards.open(sys.argv[1])
    found = trained(strategy, shards, part(shards, strategy.cluster_resolver.task_id))
    found["fault"] = fault_of_keras(strategy)
    print("FOUND", json.dumps(found))
