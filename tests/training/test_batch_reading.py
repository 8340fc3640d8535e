import keras
import numpy as np
import pytest

from tfrec_llm.training import ReplicatedTraining
from tfrec_llm.training.workers import own_batches


class Weighted(ReplicatedTraining):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="zeros")

    def call(self, inputs):
        return self.dense(inputs)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return np.ones((4, 2), "float32"), np.arange(4.0, dtype="float32")[:, None] % 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of TensorFlow")
def test_an_epoch_waits_for_no_thread_that_tunes_its_reading():
    # Where there is one, none to three of eleven epochs wait for it: the clock tells too seldom.
    read = Weighted().shared_out(Batches())
    assert read.get_tf_dataset().options().autotune.enabled is False


def test_weights_of_classes_count_in_batches():
    losses = []
    for class_weight in ({0: 0.0, 1: 1.0}, {0: 1.0, 1: 3.0}):
        model = Weighted()
        model.compile(keras.optimizers.SGD(0.0), "mse")
        history = model.fit(Batches(), class_weight=class_weight, verbose=0)
        losses += history.history["loss"]
    # The model says 0, so that only the two rows of class 1 have a loss, of 1.
    assert losses[1] == pytest.approx(3 * losses[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_weights_of_classes_count_in_batches_that_a_worker_reads_for_itself():
    import tensorflow as tf

    batches = Batches()
    batches.num_workers = 1
    shared_out = own_batches(batches, tf.distribute.OneDeviceStrategy("cpu:0"), {0: 1.0, 1: 3.0})
    _, _, weights = next(iter(shared_out.get_tf_dataset()))
    assert np.ravel(weights).tolist() == [1, 3, 1, 3]
