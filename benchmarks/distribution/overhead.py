"""What several replicas cost: two replicas on two cores against one replica with two threads.

    python benchmarks/distribution/overhead.py [--rounds 3] [--note "..."]

The same global batches train one replica, two replicas of one process, and two worker processes on
loopback. The figures are seconds of a step, wall and processor, of whole batches and of batches of
two rows. A step of two rows is what replicas do twice (the optimizer updates a copy of all weights
on each) and between them (the sum of gradients), however large the batch is. Writes
results/overhead.json beside this script, and the table of docs/scaling.md.
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
from reporting import between_marks, machine, markdown, write

RESULT = Path(__file__).parent / "results" / "overhead.json"
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
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
    results = {
        "seconds of a step": seconds,
        "rows of a batch": ROWS,
        "rounds": arguments.rounds,
        "note": arguments.note,
        "machine": machine("tfrec-llm", "tensorflow", "keras"),
    }
    write(RESULT, results)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), RESULT), encoding="utf-8")
    print(table(results))


def renewed(page: str, path: Path) -> str:
    """Returns the page with the table that the result file gives."""
    results = json.loads(path.read_text())
    of, rows = results["machine"], results["rows of a batch"]
    note = f"; {results['note']}" if results["note"] else ""
    text = (
        f"Milliseconds of a step of {rows['whole']} rows on {of['cores']} cores of "
        f"{of['processor']}, the fastest of {results['rounds']} rounds{note}:"
    )
    return between_marks(page, f"\n{text}\n\n{table(results)}\n\n")


def table(results: dict[str, Any]) -> str:
    """Returns what a step takes, to one replica's, and where the difference goes."""
    rows = [["", "a step", "to one", "longer by", "of it every step's", "processor", "cores busy"]]
    seconds = results["seconds of a step"]
    alone = seconds["one replica"]
    for kind, of_kind in seconds.items():
        whole = of_kind["whole"]
        longer, fixed = (1000 * (of_kind[what]["wall"] - alone[what]["wall"]) for what in ROWS)
        rows.append(
            [
                kind,
                f"{1000 * whole['wall']:.0f}",
                f"{whole['wall'] / alone['whole']['wall']:.2f}",
                "" if of_kind is alone else f"{longer:+.0f}",
                "" if of_kind is alone else f"{fixed:+.0f}",
                f"{1000 * whole['processor']:.0f}",
                f"{whole['processor'] / whole['wall']:.1f}",
            ]
        )
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
