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
    output_shape: tuple[int, ...],
    mixed_dtype: str = "bfloat16",
    training_batch: tuple[Any, np.ndarray] | None = None,
) -> None:
    """Puts a layer through all that Keras and its users do with it.

    It makes the round trip through its config; gives the same outputs eagerly, in a functional
    model of unknown sizes, and after it was saved and loaded; trains, and every trainable weight
    moves; and computes in mixed_bfloat16.

    Args:
        layer_class: What is tested.
        init_kwargs: Arguments of its constructor, without dropout at the most.
        inputs: Array or dict of arrays for one argument, tuple of them for several.
        output_shape: Of the output for these inputs.
        mixed_dtype: Dtype of the output in mixed_bfloat16.
        training_batch: Inputs and targets of a model with a loss of its own; other layers are
            trained to give random values.
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
    output = layer(*tensors)
    assert tuple(output.shape) == output_shape
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    expected = ops.convert_to_numpy(output)
    assert np.isfinite(expected).all()

    # Built from symbolic inputs only, it is the same layer once it has the same weights.
    symbolic = tuple(_symbolic(argument) for argument in arguments)
    fresh = layer_class(**_anew(init_kwargs))
    spec = fresh(*symbolic)
    assert spec.dtype == "float32"
    assert len(spec.shape) == len(output_shape)
    assert all(a in (None, b) for a, b in zip(spec.shape, output_shape, strict=True))
    assert [w.shape for w in fresh.weights] == [w.shape for w in layer.weights]
    fresh.set_weights(layer.get_weights())
    model = keras.Model(list(symbolic) if several else symbolic[0], spec)
    data = list(arguments) if several else inputs

    before = [ops.convert_to_numpy(weight) for weight in fresh.trainable_weights]
    if training_batch is None:
        model.compile(keras.optimizers.SGD(0.5), "mse")
        trained, (x, y) = model, (data, rng.normal(size=output_shape))
    else:
        fresh.compile(keras.optimizers.SGD(0.5))
        trained, (x, y) = fresh, training_batch
    np.testing.assert_allclose(trained.predict(data, verbose=0), expected, atol=1e-5)
    loss = trained.fit(x, y, batch_size=len(y), verbose=0).history["loss"][0]
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
    after = ops.convert_to_numpy(fresh(*tensors))
    again = loaded(list(tensors) if several else tensors[0])
    np.testing.assert_allclose(ops.convert_to_numpy(again), after, atol=1e-6)

    mixed = layer_class(**_anew(init_kwargs, dtype="mixed_bfloat16"))
    half = mixed(*tensors)
    assert keras.backend.standardize_dtype(half.dtype) == mixed_dtype
    assert {weight.dtype for weight in mixed.trainable_weights} <= {"float32"}
    mixed.set_weights(layer.get_weights())
    half = ops.convert_to_numpy(ops.cast(mixed(*tensors), "float32"))
    scale = np.abs(expected).max()
    assert np.abs(half - expected).max() < 0.05 * scale


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
