"""Training on several devices of one machine."""

import subprocess
import sys

import keras
import pytest

# Two devices have to be asked for before TensorFlow starts, so it runs in a process of its own.
CODE = """
import keras, numpy as np, tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfrec_llm.optimizers import Lamb, LayerwiseDecay, LazyAdam, Lookahead, RectifiedAdam

def rows(values, indices):
    return tf.IndexedSlices(tf.cast(values, "float32"), indices, tf.constant([6, 2]))

def built(optimizer):
    table = tf.Variable(tf.ones((6, 2)))
    optimizer.build([table])
    return table

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for make in (
    lambda: LazyAdam(0.1, epsilon=1.0),
    lambda: RectifiedAdam(0.1, sma_threshold=4.5),
    lambda: Lamb(0.1),
    lambda: Lookahead(LazyAdam(0.1, epsilon=1.0), sync_period=2),
    lambda: LayerwiseDecay("sgd", depths={"Variable:0": 2}, decay=0.5),
):
    with strategy.scope():
        shared = make()
        table = built(shared)

    @tf.function
    def step():
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            shared.apply([rows(tf.ones((2, 2)), tf.where(index == 0, [1, 2], [2, 4]))], [table])

        strategy.run(replica)

    single = make()
    alone = built(single)
    for _ in range(6):
        step()
        single.apply([rows([[1, 1], [2, 2], [1, 1]], [1, 2, 4])], [alone])
        for copy in strategy.experimental_local_results(table):
            np.testing.assert_allclose(copy.numpy(), alone.numpy(), rtol=1e-5)
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_two_replicas_step_as_one_that_has_both_batches():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
