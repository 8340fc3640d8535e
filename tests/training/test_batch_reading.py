import time

import keras
import numpy as np
import pytest

from tfrec_llm.training import ReplicatedTraining
from tfrec_llm.training.workers import own_batches

STEP_SECONDS, STEPS, EPOCHS = 0.034, 10, 12


class Timed(ReplicatedTraining):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="zeros")

    def call(self, inputs):
        return self.dense(inputs)


class SlowBatches(keras.utils.PyDataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        time.sleep(STEP_SECONDS)
        return np.ones((4, 2), "float32"), np.arange(4.0, dtype="float32")[:, None] % 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of TensorFlow")
def test_an_epoch_takes_no_longer_than_its_batches():
    model = Timed()
    model.compile("sgd", "mse")
    model.fit(SlowBatches(), verbose=0)
    begin = time.perf_counter()
    model.fit(SlowBatches(), epochs=EPOCHS, verbose=0)
    # TensorFlow would drop an epoch's iterator 0.31 or 0.63 s after its begin.
    assert time.perf_counter() - begin < 1.2 * STEP_SECONDS * STEPS * EPOCHS


def test_weights_of_classes_count_in_batches():
    losses = []
    for class_weight in ({0: 0.0, 1: 1.0}, {0: 1.0, 1: 3.0}):
        model = Timed()
        model.compile(keras.optimizers.SGD(0.0), "mse")
        history = model.fit(SlowBatches(), class_weight=class_weight, verbose=0)
        losses += history.history["loss"]
    # The model says 0, so that only the two rows of class 1 have a loss, of 1.
    assert losses[1] == pytest.approx(3 * losses[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_weights_of_classes_count_in_batches_that_a_worker_reads_for_itself():
    import tensorflow as tf

    batches = SlowBatches()
    batches.num_workers = 1
    shared_out = own_batches(batches, tf.distribute.OneDeviceStrategy("cpu:0"), {0: 1.0, 1: 3.0})
    _, _, weights = next(iter(shared_out.get_tf_dataset()))
    assert np.ravel(weights).tolist() == [1, 3, 1, 3]
