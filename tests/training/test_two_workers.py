"""Two workers that read different shards train as one process that reads them all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from two_workers import part, trained

import tfrec_llm as tr

pytestmark = [
    pytest.mark.slow,  # every worker starts TensorFlow
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"),
]


class Both(keras.utils.PyDataset):
    """The batches of both workers, rows below rows."""

    def __init__(self, shards):
        super().__init__()
        self.parts = [part(shards, 0), part(shards, 1)]

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, index):
        one, other = (batches[index] for batches in self.parts)
        return keras.tree.map_structure(lambda *rows: np.concatenate(rows), one, other)

    def on_epoch_end(self):
        for batches in self.parts:
            batches.on_epoch_end()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    log = tr.data.ShopSimulator(80, 20, seed=1).simulate()
    return tr.data.Shards.write([log.table], tmp_path_factory.mktemp("log") / "s", num_shards=4)


@pytest.fixture(scope="module")
def workers(shards):
    held = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()
    processes = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("two_workers.py"), shards.folder],
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                )
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads(output.split("FOUND", 1)[1]) for output, _ in said]


def test_rows_that_each_worker_reads_for_itself_are_all_trained_on(shards, workers):
    alone = trained(None, shards, Both(shards))
    for worker in workers:
        assert worker["steps"] == alone["steps"] == 2 * len(part(shards, 0))
        np.testing.assert_allclose(worker["losses"], alone["losses"], rtol=1e-5)
        for expected, weight in zip(alone["weights"], worker["weights"], strict=True):
            np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_keras_still_cannot_fit_on_several_workers(workers):
    # When this fails, Keras is mended, and what ReplicatedTraining does for it can go.
    assert "PerReplica" in workers[0]["fault"]
