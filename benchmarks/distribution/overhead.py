"""What several replicas cost: two replicas on two cores against one replica with two threads.

    python benchmarks/distribution/overhead.py [--rounds 3] [--note "..."]

The same global batches train one replica, two replicas of one process, and two worker processes on
loopback. The figures are seconds of a step, wall and processor, of whole batches and of batches of
two rows. A step of two rows is what replicas do twice (the optimizer updates a copy of all weights
on each) and between them (the sum of gradients), however large the batch is. Prints a table and
writes results/overhead.json beside this script.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import machine, markdown, write

KINDS = ("one replica", "two replicas", "two workers")
ROWS = {"whole": 32, "two rows": 2}
WARM_UP, STEPS = 4, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    parser.add_argument("--note", default="", help="such as who else used the machine")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(measured(arguments.kind)))
        return
    # In turns, so that what else runs on the machine slows all down alike.
    rounds = [{kind: run(kind) for kind in KINDS} for _ in range(arguments.rounds)]
    seconds = {
        kind: {
            what: {clock: min(each[kind][what][clock] for each in rounds) for clock in clocks}
            for what, clocks in rounds[0][kind].items()
        }
        for kind in KINDS
    }
    alone = seconds["one replica"]
    results = {
        "seconds of a step": seconds,
        "ratio to one replica": {
            kind: {
                what: {
                    clock: round(value / alone[what][clock], 3) for clock, value in clocks.items()
                }
                for what, clocks in of_kind.items()
            }
            for kind, of_kind in seconds.items()
        },
        "rows of a batch": ROWS,
        "rounds": arguments.rounds,
        "note": arguments.note,
        "machine": machine("tfrec-llm", "tensorflow", "keras"),
    }
    write(Path(__file__).parent / "results" / "overhead.json", results)
    print(table(results))


def table(results: dict[str, Any]) -> str:
    rows = [["", *(f"{what}, {clock}" for what in ROWS for clock in ("wall", "processor"))]]
    for kind, of_kind in results["seconds of a step"].items():
        ratios = results["ratio to one replica"][kind]
        cells = [
            f"{of_kind[what][clock] * 1000:.0f} ms ({ratios[what][clock]:.2f})"
            for what in ROWS
            for clock in ("wall", "processor")
        ]
        rows.append([kind, *cells])
    return markdown(rows)


def run(kind: str) -> dict[str, Any]:
    """Runs a kind in processes of its own; returns the seconds of a step, those of all added up."""
    command = [sys.executable, __file__, "--kind", kind]
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    environments = [variables]
    if kind == "two workers":
        held = [socket.create_server(("localhost", 0)) for _ in range(2)]
        addresses = [f"localhost:{each.getsockname()[1]}" for each in held]
        for each in held:
            each.close()
        environments = [
            variables
            | {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                )
            }
            for index in range(2)
        ]
    processes = [
        subprocess.Popen(command, env=each, stdout=subprocess.PIPE, text=True)
        for each in environments
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{kind} failed.")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    return {
        what: {
            "wall": max(each[what]["wall"] for each in found),
            "processor": sum(each[what]["processor"] for each in found),
        }
        for what in ROWS
    }


def measured(kind: str) -> dict[str, Any]:
    """Trains in this process; returns the median step's seconds."""
    import numpy as np
    import tensorflow as tf

    threads = 1 if kind == "two workers" else 2
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    if kind == "two replicas":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
    import keras

    import tfrec_llm as tr

    names = {"one replica": "none", "two replicas": "mirrored", "two workers": "multi_worker"}
    strategy = tr.training.distribution_strategy(names[kind])

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.times = []

        def on_train_batch_end(self, batch, logs=None):
            self.times.append((time.perf_counter(), time.process_time()))

    log = tr.data.ShopSimulator(num_users=8000, num_items=3000, seed=0).simulate()
    vocabulary = tr.data.Vocabulary.fit(log.item)
    found = {}
    for what, rows in ROWS.items():
        keras.utils.set_random_seed(0)
        with tr.training.distribution_scope(strategy):
            encoder = tr.models.BehaviorEncoder(
                vocabulary.size, emb_dim=64, num_layers=2, num_heads=2, max_length=64
            )
            model = tr.models.NextBehaviorModel(encoder)
            model.compile("adam")
        batches = tr.data.next_batches(
            log, vocabulary=vocabulary, max_length=64, row_length=128, batch_size=rows
        )
        clock = Clock()
        steps = min(WARM_UP + STEPS, len(batches))
        model.fit(batches, steps_per_epoch=steps, callbacks=[clock], verbose=0)
        wall, processor = np.median(np.diff(np.array(clock.times)[WARM_UP:], axis=0), axis=0)
        found[what] = {"wall": round(float(wall), 5), "processor": round(float(processor), 5)}
    return found


if __name__ == "__main__":
    main()
