"""An interrupted training goes on where it was, and ends as if undisturbed."""

import os
import shutil
import signal

import keras
import numpy as np
import pytest

import tfrec_llm as tr
from tfrec_llm.data import atomic
from tfrec_llm.errors import SavedModelError
from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel
from tfrec_llm.training import TrainingCheckpoint

EPOCHS = 3


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 90)
    items = rng.integers(3, 20, lengths.sum()).astype("int32")
    return tr.data.UserSequences(items, np.append(0, np.cumsum(lengths)))


def train(sequences, *callbacks, **options):
    """Trains with dropout and sampled negatives; returns the model and its history."""
    keras.utils.set_random_seed(0)
    encoder = BehaviorEncoder(20, 8, num_layers=1, max_length=8, dropout=0.2)
    model = NextBehaviorModel(encoder)
    loss = tr.losses.SampledCrossEntropy(8, seed=1)
    model.compile(tr.optimizers.LazyAdam(0.01), loss=loss, **options)
    batches = tr.data.next_batches(sequences, batch_size=3)
    history = model.fit(batches, epochs=EPOCHS, callbacks=list(callbacks), verbose=0)
    return model, history.history["loss"]


class At(keras.callbacks.Callback):
    """Does something after a step of an epoch."""

    def __init__(self, epoch, step, action):
        super().__init__()
        self.at, self.action = (epoch, step), action

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch + 1) == self.at:
            self.action()


class KilledError(Exception):
    """Stands for the end of the process."""


def kill():
    raise KilledError


def assert_killed(*arguments, **options):
    with pytest.raises(KilledError):
        train(*arguments, **options)


@pytest.fixture(scope="module")
def undisturbed(sequences):
    return train(sequences)


@pytest.fixture(scope="module")
def killed(sequences, tmp_path_factory):
    """The checkpoints that a training has left which was killed at step 8 of its second epoch."""
    path = tmp_path_factory.mktemp("killed") / "training.npz"
    assert_killed(sequences, TrainingCheckpoint(path, every=3), At(1, 8, kill))
    return path


@pytest.fixture
def path(killed, tmp_path):
    for name in ("training.npz", "training.npz.previous"):
        shutil.copy(killed.with_name(name), tmp_path / name)
    return tmp_path / "training.npz"


def assert_as_if_undisturbed(resumed, undisturbed):
    pairs = zip(undisturbed[0].get_weights(), resumed[0].get_weights(), strict=True)
    for expected, found in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    losses = undisturbed[1][-len(resumed[1]) :]
    np.testing.assert_allclose(resumed[1], losses, rtol=1e-5)


def test_a_training_killed_within_an_epoch_ends_as_if_undisturbed(sequences, path, undisturbed):
    resumed = train(sequences, TrainingCheckpoint(path, every=3))
    assert len(resumed[1]) == EPOCHS - 1
    assert_as_if_undisturbed(resumed, undisturbed)
    assert os.listdir(path.parent) == []


def test_several_steps_a_call_are_saved_after_and_resumed(sequences, tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path / "training.npz", every=5)
    # Calls end at steps 4, 8, ...: the checkpoint of step 5 is written after 8.
    assert_killed(sequences, checkpoint, At(1, 8, kill), steps_per_execution=4)
    with pytest.raises(SavedModelError, match="no call of 3 steps begins"):
        train(sequences, TrainingCheckpoint(checkpoint.path), steps_per_execution=3)
    resumed = train(sequences, TrainingCheckpoint(checkpoint.path), steps_per_execution=4)
    assert_as_if_undisturbed(resumed, train(sequences, steps_per_execution=4))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(sequences, path, undisturbed):
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.warns(UserWarning, match=r"cannot be read .* goes on from the one before"):
        resumed = train(sequences, TrainingCheckpoint(path, every=3))
    assert_as_if_undisturbed(resumed, undisturbed)


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_whole_one(sequences, path):
    before = path.with_name("training.npz.previous")
    whole = before.read_bytes()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.warns(UserWarning, match="cannot be read"):
        assert_killed(sequences, TrainingCheckpoint(path, every=3), At(1, 5, kill))
    assert before.read_bytes() == whole
    assert path.stat().st_size > 2000


def test_two_damaged_checkpoints_are_refused(sequences, path):
    for each in (path, path.with_name("training.npz.previous")):
        each.write_bytes(b"PK")
    with pytest.raises(SavedModelError, match=r"cannot be read .* Delete it to start anew"):
        train(sequences, TrainingCheckpoint(path))


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(
    sequences, path, undisturbed, monkeypatch
):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.warns(UserWarning, match="No space left"):
            assert_killed(sequences, TrainingCheckpoint(path, every=3), At(2, 4, kill))
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["training.npz", "training.npz.previous"]
    assert_as_if_undisturbed(train(sequences, TrainingCheckpoint(path)), undisturbed)


def test_ctrl_c_saves_the_step_in_work(sequences, tmp_path, undisturbed):
    path = tmp_path / "training.npz"
    before = signal.getsignal(signal.SIGINT)
    interrupt = At(0, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(sequences, interrupt, TrainingCheckpoint(path))
    assert signal.getsignal(signal.SIGINT) is before
    steps = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(float(self.model.optimizer.iterations))

    assert_as_if_undisturbed(train(sequences, TrainingCheckpoint(path), Steps()), undisturbed)
    assert steps[:7] == [5.0] * 5 + [6.0, 7.0]


def test_a_request_to_terminate_saves_too_and_ends_the_process(sequences, tmp_path):
    path = tmp_path / "training.npz"
    with pytest.raises(SystemExit) as raised:
        train(
            sequences,
            At(0, 1, lambda: os.kill(os.getpid(), signal.SIGTERM)),
            TrainingCheckpoint(path),
        )
    assert raised.value.code == 128 + signal.SIGTERM
    assert path.exists()


def test_a_checkpoint_of_other_weights_is_refused(path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(SavedModelError, match="with other weights"):
        TrainingCheckpoint(path).restore(model)
