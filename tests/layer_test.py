"""One test that every layer and model passes."""

import json
import os
import tempfile
from typing import Any

import keras
import numpy as np
from keras import ops, tree


def run_layer_test(
    layer_class: type[keras.Layer],
    init_kwargs: dict[str, Any],
    inputs: Any,
    *,
    output_shape: tuple[int, ...] | dict[str, tuple[int, ...]],
    mixed_dtype: str = "bfloat16",
    training_batch: tuple[Any, ...] | None = None,
) -> None:
    """Puts a layer through all that Keras and its users do with it.

    It makes the round trip through its config; gives the same outputs eagerly, in a functional
    model of unknown sizes, and after it was saved and loaded; trains, and every trainable weight
    moves; and computes in mixed_bfloat16.

    Args:
        layer_class: What is tested.
        init_kwargs: Arguments of its constructor, without dropout at the most.
        inputs: Array or dict of arrays for one argument, tuple of them for several.
        output_shape: Of the output for these inputs; by name where there are several.
        mixed_dtype: Dtype of the output in mixed_bfloat16; indexes are int32 always.
        training_batch: Inputs, targets and perhaps weights of a model with a loss of its own;
            other layers are trained to give random values.
    """
    keras.utils.set_random_seed(0)
    several = isinstance(inputs, tuple)
    arguments = inputs if several else (inputs,)
    tensors = tree.map_structure(ops.convert_to_tensor, arguments)

    layer = layer_class(**_anew(init_kwargs))
    _check_config(layer, init_kwargs)

    layer(*tensors)
    # Zero biases and near-zero kernels would hide what a weight does.
    rng = np.random.default_rng(0)
    layer.set_weights([_shaken(weight, rng) for weight in layer.get_weights()])
    shapes = _named(output_shape)
    output = _named(layer(*tensors))
    assert {name: tuple(values.shape) for name, values in output.items()} == shapes
    assert _dtypes(output) <= {"float32", "int32"}
    expected = _numpy(output)
    assert all(np.isfinite(values).all() for values in expected.values())

    # Built from symbolic inputs only, it is the same layer once it has the same weights.
    symbolic = tuple(_symbolic(argument) for argument in arguments)
    fresh = layer_class(**_anew(init_kwargs))
    spec = fresh(*symbolic)
    for name, symbol in _named(spec).items():
        assert symbol.dtype == keras.backend.standardize_dtype(output[name].dtype)
        assert len(symbol.shape) == len(shapes[name])
        assert all(a in (None, b) for a, b in zip(symbol.shape, shapes[name], strict=True))
    assert [w.shape for w in fresh.weights] == [w.shape for w in layer.weights]
    fresh.set_weights(layer.get_weights())
    model = keras.Model(list(symbolic) if several else symbolic[0], spec)
    data = list(arguments) if several else inputs

    before = [ops.convert_to_numpy(weight) for weight in fresh.trainable_weights]
    if training_batch is None:
        model.compile(keras.optimizers.SGD(0.5), "mse")
        y = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        y = y if isinstance(output_shape, dict) else y["output"]
        trained, batch = model, (data, y, None)
    else:
        fresh.compile(keras.optimizers.SGD(0.5))
        trained, batch = fresh, (*training_batch, None)
    for name, values in _named(trained.predict(data, verbose=0)).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
    x, y, weights = batch[:3]
    rows = len(tree.flatten(y)[0])
    history = trained.fit(x, y, batch_size=rows, sample_weight=weights, verbose=0).history
    loss = history["loss"][0]
    assert np.isfinite(loss)
    for weight, old in zip(fresh.trainable_weights, before, strict=True):
        new = ops.convert_to_numpy(weight)
        assert np.isfinite(new).all(), f"{weight.path} is no number after one step"
        assert not np.array_equal(new, old), f"no gradient reaches {weight.path}"

    with tempfile.TemporaryDirectory() as folder:
        trained.save(os.path.join(folder, "model.keras"))
        loaded = keras.models.load_model(os.path.join(folder, "model.keras"))
    # The optimizer is part of what was saved: training goes on where it was.
    assert int(loaded.optimizer.iterations) == bool(fresh.trainable_weights)
    after = _numpy(_named(fresh(*tensors)))
    again = _numpy(_named(loaded(list(tensors) if several else tensors[0])))
    for name, values in again.items():
        np.testing.assert_allclose(values, after[name], atol=1e-6)

    mixed = layer_class(**_anew(init_kwargs, dtype="mixed_bfloat16"))
    assert _dtypes(_named(mixed(*tensors))) <= {mixed_dtype, "int32"}
    assert {weight.dtype for weight in mixed.trainable_weights} <= {"float32"}
    mixed.set_weights(layer.get_weights())
    for name, values in _named(mixed(*tensors)).items():
        half = ops.convert_to_numpy(ops.cast(values, "float32"))
        scale = np.abs(expected[name]).max()
        assert np.abs(half - expected[name]).max() <= 0.05 * scale


def _named(output):
    """Outputs by name, also where there is but one."""
    return output if isinstance(output, dict) else {"output": output}


def _numpy(output):
    return {name: ops.convert_to_numpy(values) for name, values in output.items()}


def _dtypes(output):
    return {keras.backend.standardize_dtype(values.dtype) for values in output.values()}


def _check_config(layer, init_kwargs):
    config = layer.get_config()
    assert init_kwargs.keys() <= config.keys()
    for name, value in init_kwargs.items():
        if isinstance(value, bool | int | float | str | None):
            assert config[name] == value
    # Encoders and initializers inside it come as serialised objects.
    again = type(layer).from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    named = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    )
    assert type(named) is type(layer)
    assert named.get_config() == config
    assert layer.get_config() == config


def _symbolic(values, name=None):
    """An input of unknown sizes; the width of features is known."""
    if isinstance(values, dict):
        return {key: _symbolic(value, key) for key, value in values.items()}
    known = values.shape[-1:] if values.dtype.kind == "f" else ()
    unknown = (None,) * (values.ndim - 1 - len(known))
    return keras.Input((*unknown, *known), dtype=str(values.dtype), name=name)


def _shaken(weight, rng):
    """Indexes that a layer holds stay what they are."""
    return weight + rng.normal(0, 0.3, weight.shape) if weight.dtype.kind == "f" else weight


def _anew(init_kwargs, **options):
    """The arguments for one more layer, with layers of its own where some are among them."""
    layers = {
        name: _copied(value, options)
        for name, value in init_kwargs.items()
        if isinstance(value, keras.Layer)
    }
    if "encoder" in layers:  # a model takes its dtype from the encoder
        return init_kwargs | layers
    return init_kwargs | layers | options


def _copied(layer, options):
    copy = type(layer).from_config(layer.get_config() | options)
    if layer.built:
        copy.build(None)
        copy.set_weights(layer.get_weights())
    return copy
