"""Training on two replicas gives what training on one gives."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"
)


@pytest.fixture(scope="module")
def found():
    script = Path(__file__).with_name("two_devices.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("FOUND", 1)[1])


def test_the_strategy_takes_all_devices_there_are(found):
    assert found["replicas"] == 2


@pytest.mark.parametrize("model", ["masked", "next", "click", "contrastive"])
def test_two_replicas_end_with_the_weights_of_one(found, model):
    assert found[model]["steps"] >= 20
    assert found[model]["difference"] < 1e-5


@pytest.mark.parametrize("model", ["masked", "next", "click", "contrastive"])
def test_two_replicas_report_the_losses_and_metrics_of_one(found, model):
    one, two = found[model]["logs"]
    assert sorted(one) == sorted(two)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-5, err_msg=name)


def test_predictions_of_one_batch_come_once(found):
    one, two = found["click"]["predicted"]
    np.testing.assert_allclose(two, one, atol=1e-6)


def test_inputs_of_strings_are_trained_on(found):
    assert len(found["words"]) == 1
    assert found["words"][0] >= 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("jit_compile", "jit_compile=True does not work .* Leave it out"),
        ("ema_overwrite_frequency", "ema_overwrite_frequency does not work .*weight_averaging"),
        ("used optimizer", "was used outside the distribution strategy. Make a new one"),
    ],
)
def test_what_cannot_work_is_refused_when_the_model_is_compiled(found, what, message):
    assert re.match(f"ValueError: .*{message}", found["refused"][what])


# When one of these fails, Keras is mended, and what ReplicatedTraining does for it can go.
@pytest.mark.parametrize(
    ("fault", "sign"),
    [
        # Targets 9 and 0 of weights 3 and 1 have the gradient -13.5.
        ("the mean of means", "9.0"),
        ("clipping before the sum", "1.0"),
        ("accumulation", "merge_call"),
        ("overwriting by averages", "merge_call"),
        ("several steps a call", "Placeholder"),
        ("XLA", "tfvariable_on_a_different_device"),
        ("an odd first batch", "must have the same size and shape"),
        ("strings", "string"),
        ("predict_on_batch", "6"),
    ],
)
def test_keras_still_has_the_fault_that_is_worked_around(found, fault, sign):
    assert sign in str(found["faults"][fault])
