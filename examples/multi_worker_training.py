"""Trains on several workers, here processes of this machine, and restarts them where one dies.

With --kill-at one of the workers is killed on the way, which changes nothing of the result:

    python multi_worker_training.py --kill-at 20 --compare

On a cluster, give every machine its own TF_CONFIG and start this script there without a launcher.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import tfrec_llm as tr

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--users", type=int, default=1000, help="customers of the simulated shop")
parser.add_argument("--rows", type=int, default=16, help="rows of a global batch")
parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
parser.add_argument("--kill-at", type=int, default=0, help="step after which a worker is killed")
parser.add_argument("--compare", action="store_true", help="train in one process, too")
parser.add_argument("--folder", default="multi_worker", help="seen by all workers")
arguments = parser.parse_args()
folder = Path(arguments.folder)


def train(strategy, name: str, *, worker: int = 0) -> None:
    """Trains and writes the weights; the same code for one process and for a worker."""
    import keras

    class KillLastWorker(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps = int(self.model.optimizer.iterations.numpy())
            if steps == arguments.kill_at and worker == arguments.workers - 1:
                os.kill(os.getpid(), signal.SIGKILL)

    shop = tr.data.ShopSimulator(num_users=arguments.users, num_items=200, seed=1)
    split = tr.data.leave_last_out(shop.simulate())
    vocabulary = tr.data.Vocabulary.fit(split.train.item)
    keras.utils.set_random_seed(0)  # the workers begin alike
    with tr.training.distribution_scope(strategy):
        encoder = tr.models.BehaviorEncoder(
            vocabulary.size, emb_dim=32, num_layers=1, num_heads=2, max_length=50, dropout=0.0
        )
        model = tr.models.NextBehaviorModel(encoder)
        model.compile(keras.optimizers.Adam(2e-3, epsilon=1e-5, global_clipnorm=1.0))
    model.fit(
        tr.data.next_batches(
            split.train, vocabulary=vocabulary, max_length=50, batch_size=arguments.rows
        ),
        epochs=arguments.epochs,
        callbacks=[
            tr.training.TrainingCheckpoint(folder / f"{name}.npz", every=arguments.every),
            KillLastWorker(),
        ],
        verbose=2 if worker == 0 else 0,
    )
    np.savez(folder / f"{name}_{worker}.weights.npz", *model.get_weights())


def free_ports() -> list[int]:
    held = [socket.create_server(("localhost", 0)) for _ in range(arguments.workers)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def run_workers(*, kill_at: int) -> bool:
    """Starts all workers; returns whether they came to the end. One that dies ends the others."""
    addresses = [f"localhost:{port}" for port in free_ports()]
    names = ("workers", "epochs", "users", "rows", "every", "folder")
    options = [f"--{name}={getattr(arguments, name)}" for name in names]
    options.append(f"--kill-at={kill_at}")
    workers = []
    for index in range(arguments.workers):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        workers.append(
            subprocess.Popen(
                [sys.executable, __file__, *options], env=os.environ | {"TF_CONFIG": config}
            )
        )
    while any(worker.poll() is None for worker in workers):
        if any(worker.poll() for worker in workers):
            for worker in workers:
                worker.kill()
        time.sleep(0.2)
    return not any(worker.returncode for worker in workers)


def weights(name: str) -> list[np.ndarray]:
    with np.load(folder / f"{name}.weights.npz") as stored:
        return list(stored.values())


def difference(one: str, other: str) -> float:
    pairs = zip(weights(one), weights(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


folder.mkdir(parents=True, exist_ok=True)
if "TF_CONFIG" in os.environ:
    # First of all: TensorFlow has to know the workers before it computes anything.
    strategy = tr.training.distribution_strategy("multi_worker")
    train(strategy, "workers", worker=strategy.cluster_resolver.task_id)
else:
    kill_at, starts = arguments.kill_at, 1
    while not run_workers(kill_at=kill_at):
        if starts == 3:
            sys.exit("The workers failed three times.")
        kill_at, starts = 0, starts + 1
        print("A worker has died; all start again from the last checkpoint.", flush=True)
    for worker in range(1, arguments.workers):
        found = difference("workers_0", f"workers_{worker}")
        print(f"Weights of worker 0 and worker {worker} differ by {found:.1g} at most.")
    if arguments.compare:
        arguments.kill_at = 0
        train(None, "alone")
        found = difference("workers_0", "alone_0")
        print(f"From those of one process they differ by less than 1e-5: {found < 1e-5}.")
