"""An item encoder that learns from a catalogue alone."""

import keras
import numpy as np
import pyarrow as pa
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import AttributeBatches, Catalogue, FeatureEncoding
from tfrec_llm.errors import DataError
from tfrec_llm.layers import FeatureLookup, ItemEmbedding, ItemEncoder
from tfrec_llm.models import MaskedAttributeModel


def columns(rows=60):
    """What an item is made for tells its price, its words and its picture."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, rows)
    return {
        "kind": np.array(["top", "skirt", "hat"])[kind],
        "title": pa.array([f"{('warm', 'long', 'soft')[k]} thing" for k in kind]),
        "tags": pa.array([[f"t{k}", "all"] for k in kind]),
        "price": 10.0 * kind + rng.normal(size=rows),
        "image": np.eye(3, 4)[kind] + rng.normal(0, 0.1, (rows, 4)),
    }


TYPES = {"title": "text"}
ENCODING = FeatureEncoding.fit(columns(), types=TYPES)
ARRAYS = ENCODING.encode(columns())


def test_a_masked_attribute_model_is_a_sound_keras_model():
    inputs = {name: values[:7] for name, values in ARRAYS.items()}
    sizes = {spec.name: spec.size for spec in ENCODING.specs} | {"price": 1}
    run_layer_test(
        MaskedAttributeModel,
        {"encoder": ItemEncoder(ENCODING, 8)},
        inputs,
        output_shape={name: (7, size) for name, size in sizes.items()},
        mixed_dtype="float32",
        training_batch=AttributeBatches(ENCODING, ARRAYS)[0],
    )


def test_some_but_not_all_known_features_are_hidden_as_if_missing():
    missing = {name: values[:1] for name, values in ENCODING.missing(1).items()}
    arrays = {name: values.copy() for name, values in ARRAYS.items()}
    arrays["kind"][:20] = 0
    batches = AttributeBatches(ENCODING, arrays, mask_rate=0.5, batch_size=25, seed=3)
    assert [len(batches[number][1]["kind"]) for number in range(3)] == [25, 25, 10]
    shares = []
    for inputs, targets, weights in (batches[number] for number in range(3)):
        hidden = np.stack([weights[spec.name] for spec in ENCODING.specs], axis=1) > 0
        known = np.ones_like(hidden)
        known[:, 0] = targets["kind"] > 0
        assert not (hidden & ~known).any()
        assert ((hidden.sum(axis=1) > 0) & (hidden.sum(axis=1) < known.sum(axis=1))).all()
        shares.append(hidden.sum() / known.sum())
        for spec, here in zip(ENCODING.specs, hidden.T, strict=True):
            expected = targets[spec.name].copy()
            expected[here] = missing[spec.name]
            np.testing.assert_array_equal(inputs[spec.name], expected)
    assert 0.4 < np.mean(shares) < 0.6
    again = AttributeBatches(ENCODING, arrays, mask_rate=0.5, batch_size=25, seed=3)
    np.testing.assert_array_equal(again[1][2]["price"], batches[1][2]["price"])
    again.on_epoch_end()
    assert (again[1][2]["price"] != batches[1][2]["price"]).any()


def test_items_with_too_little_known_are_left_out():
    items = Catalogue(
        pa.table({"item": list("ABC"), "kind": ["x", None, "y"], "usd": [1.0, 2.0, None]})
    )
    encoding = FeatureEncoding.fit(items)
    batches = AttributeBatches(encoding, items)
    assert batches.num_short == 2
    assert len(batches[0][1]["usd"]) == 1
    with pytest.raises(DataError, match="None of 2 items has two known features"):
        AttributeBatches(encoding, items, ids=["B", "C"])
    with pytest.raises(ValueError, match=r"mask_rate must lie between 0 and 1, got 1.0"):
        AttributeBatches(encoding, items, mask_rate=1.0)
    with pytest.raises(IndexError, match="batch 1 of 1"):
        batches[1]


def test_the_loss_is_that_of_what_is_hidden():
    model = MaskedAttributeModel(ItemEncoder(ENCODING, 8))
    model.compile("sgd")
    inputs, targets, weights = AttributeBatches(ENCODING, ARRAYS)[0]
    told = {name: ops.convert_to_numpy(values) for name, values in model(inputs).items()}
    total = count = 0.0
    for spec in ENCODING.specs:
        for row in np.flatnonzero(weights[spec.name]):
            guess, truth = told[spec.name][row], targets[spec.name][row]
            if spec.is_index:
                shares = np.log(np.exp(guess) / np.exp(guess).sum())
                right = np.atleast_1d(truth)
                total -= shares[right[right > 0]].mean()
            elif spec.kind == "vector":
                total += np.square(guess - truth).mean()
            else:
                total += (guess[0] - truth[0]) ** 2
            count += 1
    found = model.evaluate(inputs, targets, sample_weight=weights, batch_size=99, verbose=0)
    assert found == pytest.approx(total / count, rel=1e-4)
    with pytest.raises(ValueError, match="has a loss of its own for every feature"):
        model.compile("sgd", loss="mse")


def test_what_goes_with_what_is_learned_and_handed_on():
    keras.utils.set_random_seed(0)
    encoder = ItemEncoder(ENCODING, 16)
    model = MaskedAttributeModel(encoder)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(AttributeBatches(ENCODING, ARRAYS, batch_size=20), epochs=25, verbose=0)
    asked = {name: values.copy() for name, values in ARRAYS.items()}
    asked["kind"][:] = 0
    told = ops.convert_to_numpy(model(asked)["kind"]).argmax(axis=1)
    assert (told == ARRAYS["kind"]).mean() > 0.9
    asked = dict(ARRAYS) | {"price": np.tile(np.float32([0, 1]), (60, 1))}
    told = ops.convert_to_numpy(model(asked)["price"])[:, 0]
    assert np.corrcoef(told, ARRAYS["price"][:, 0])[0, 1] > 0.8
    embedding = ItemEmbedding(
        60, 16, features=FeatureLookup(ENCODING, ARRAYS), feature_encoder=encoder
    )
    vectors = ops.convert_to_numpy(embedding(ops.arange(60)) - embedding.table)
    np.testing.assert_allclose(vectors, ops.convert_to_numpy(encoder(ARRAYS)), atol=1e-6)
