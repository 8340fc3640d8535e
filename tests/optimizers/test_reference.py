"""The optimizers give the values that TensorFlow Addons gave."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.optimizers import Lamb, LazyAdam, Lookahead, RectifiedAdam

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "tfa_tfrs.json").read_text())
PROBLEM = REFERENCE["problem"]
ENTRIES = {entry["name"]: entry for entry in REFERENCE["optimizers"]}


def of_entry(name):
    """The optimizer that an entry was computed with."""
    args = ENTRIES[name]["args"]
    if name.startswith("Lookahead"):
        assert args["inner"] == "Adam(0.05)"
        periods = {key: args[key] for key in ("sync_period", "slow_step_size")}
        return Lookahead(keras.optimizers.Adam(0.05), **periods)
    classes = {"LazyAdam": LazyAdam, "RectifiedAdam": RectifiedAdam, "LAMB": Lamb}
    return classes[name.partition("_")[0]](**args)


def values(optimizer, names):
    """The variables of these names after each step of the problem."""
    variables = [keras.Variable(np.array(PROBLEM[name], "float32")) for name in names]
    steps = zip(PROBLEM["ids"], PROBLEM["row_gradients"], PROBLEM["dense_gradients"], strict=True)
    found = {name: [] for name in names}
    for ids, row_gradients, dense_gradient in steps:
        gradients = {"dense": np.array(dense_gradient, "float32")}
        if "table" in names:
            import tensorflow as tf

            rows = tf.constant(row_gradients, "float32")
            gradients["table"] = tf.IndexedSlices(rows, tf.constant(ids), tf.constant([12, 4]))
        optimizer.apply([gradients[name] for name in names], variables)
        for name, variable in zip(names, variables, strict=True):
            found[name].append(ops.convert_to_numpy(variable))
    return found


@pytest.mark.parametrize("name", ENTRIES)
def test_all_steps_equal_those_of_tensorflow_addons(name):
    on_tensorflow = keras.backend.backend() == "tensorflow"
    found = values(of_entry(name), ["table", "dense"] if on_tensorflow else ["dense"])
    for part, steps in found.items():
        np.testing.assert_allclose(steps, ENTRIES[name][part], rtol=0, atol=1e-5, err_msg=part)


def test_as_many_optimizers_as_were_written_down_are_compared():
    names = {"LazyAdam", "RectifiedAdam", "RectifiedAdam_warmup", "Lookahead_Adam", "LAMB"}
    assert set(ENTRIES) == names
    assert all(len(entry[part]) == 6 for entry in ENTRIES.values() for part in ("table", "dense"))
