"""Training on two replicas gives what training on one gives."""

import json
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


@pytest.mark.parametrize("model", ["masked", "next", "click"])
def test_two_replicas_end_with_the_weights_of_one(found, model):
    assert found[model]["steps"] >= 20
    assert found[model]["difference"] < 1e-5


@pytest.mark.parametrize("model", ["masked", "next", "click"])
def test_two_replicas_report_the_losses_and_metrics_of_one(found, model):
    one, two = found[model]["logs"]
    assert sorted(one) == sorted(two)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-5, err_msg=name)
