"""Layers that read features: embedding, look-up, item encoder, and embeddings with features."""

import dataclasses

import keras
import numpy as np
import pyarrow as pa
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import Catalogue, FeatureEncoding, FeatureSpec, Vocabulary
from tfrec_llm.layers import (
    FeatureEmbedding,
    FeatureLookup,
    ItemEmbedding,
    ItemEncoder,
    UserEmbedding,
)

COLUMNS = {
    "brand": ["X", "Y", None, "Y"],
    "tags": [["a", "b"], None, ["b", "c", "a"], []],
    "a title": ["red skirt", "red top", "long blue jeans", None],
    "price": [1.0, None, -3.0, 11.0],
    "image": [[1.0, 2.0], [0.0, 1.0], None, [3.0, 3.0]],
}
TYPES = {"tags": "multi", "a title": "text", "image": "vector"}
ENCODING = FeatureEncoding.fit(
    {name: pa.array(values) for name, values in COLUMNS.items()}, types=TYPES
)
ARRAYS = ENCODING.encode({name: pa.array(values) for name, values in COLUMNS.items()})


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def lookup(**options):
    """Four items with features behind the three reserved indexes, and one without any."""
    rows = [ENCODING.missing(3), ARRAYS, ENCODING.missing(1)]
    arrays = {name: np.concatenate([part[name] for part in rows]) for name in ARRAYS}
    layer = FeatureLookup(ENCODING, arrays, **options)
    layer.build()
    return layer


def test_feature_embedding_is_a_sound_keras_layer():
    options = {"specs": ENCODING.specs, "emb_dim": 4}
    run_layer_test(FeatureEmbedding, options, ARRAYS, output_shape=(4, 5, 4))


@pytest.mark.parametrize("options", [{"num_layers": 0}, {"block": "gated", "hid_dim": 6}])
def test_item_encoder_is_a_sound_keras_layer(options):
    options = {"specs": ENCODING.specs, "emb_dim": 4, **options}
    run_layer_test(ItemEncoder, options, ARRAYS, output_shape=(4, 4))


def test_feature_lookup_is_a_sound_keras_layer():
    items = np.array([[3, 4, 5], [6, 0, 7]], np.int32)
    # Keras makes a scope of the name of each output, which takes no spaces.
    specs = [dataclasses.replace(spec, name=spec.name[-5:]) for spec in ENCODING.specs]
    shapes = {spec.name: (2, 3, *spec.shape) for spec in specs}
    options = {"features": specs, "vocab_size": 8}
    run_layer_test(FeatureLookup, options, items, output_shape=shapes, mixed_dtype="float32")


def test_embeddings_with_features_are_sound_keras_layers():
    items = np.array([[3, 4, 5], [6, 0, 7]], np.int32)
    options = {"vocab_size": 8, "emb_dim": 4, "features": lookup()}
    run_layer_test(ItemEmbedding, options, items, output_shape=(2, 3, 4))
    options["feature_encoder"] = ItemEncoder(ENCODING.specs, 4, num_layers=0)
    run_layer_test(UserEmbedding, options, items, output_shape=(2, 3, 4))


def test_a_lookup_of_rows_makes_the_round_trip_through_config_and_file(tmp_path):
    layer = lookup()
    again = FeatureLookup.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    specs = FeatureLookup(ENCODING.specs, vocab_size=8)
    assert FeatureLookup.from_config(specs.get_config()).get_config() == specs.get_config()
    assert specs.encoding is None
    items = keras.Input((None,), dtype="int32")
    model = keras.Model(items, layer(items))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    asked = np.array([[3, 6], [0, 5]], np.int32)
    expected = layer(ops.convert_to_tensor(asked))
    for name, values in loaded(ops.convert_to_tensor(asked)).items():
        np.testing.assert_array_equal(numpy(values), numpy(expected[name]))
        np.testing.assert_array_equal(numpy(values)[0, 0], ARRAYS[name][0])
    np.testing.assert_array_equal(numpy(loaded(asked)["price"])[1, 0], [0, 1])
    assert loaded.layers[-1].encoding.encode(COLUMNS).keys() == ARRAYS.keys()


def test_a_vocabulary_is_looked_up_in_a_table():
    items = Catalogue(pa.table({"item": list("ABCD"), "price": [1.0, 2.0, 3.0, 4.0]}))
    encoding = FeatureEncoding.fit(items, ids=["A", "C"])
    layer = FeatureLookup.of(encoding, items, Vocabulary(["C", "Z", "A"]))
    layer.build()
    found = numpy(layer(ops.arange(6))["price"])
    assert found[:, 1].tolist() == [1, 1, 1, 0, 1, 0]
    np.testing.assert_array_equal(found[[5, 3]], encoding.encode(items, ids=["A", "C"])["price"])
    newer = encoding.encode({"price": [9.0, None]})
    layer.put(4, newer)
    np.testing.assert_array_equal(numpy(layer(ops.array([4, 5]))["price"]), newer["price"])
    np.testing.assert_array_equal(numpy(layer(ops.array([3]))["price"]), found[[3]])
    with pytest.raises(ValueError, match="Rows 5 to 7 do not lie in 0 to 6"):
        layer.put(5, newer)


def test_arrays_that_do_not_fit_are_refused():
    specs = (FeatureSpec("kind", "categorical", 3), FeatureSpec("usd", "numeric", 2, 2))
    kind, usd = np.array([0, 2]), np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"no array of 'usd', only of \['kind'\]"):
        FeatureLookup(specs, {"kind": kind})
    with pytest.raises(ValueError, match=r"'usd' has the shape \(2,\); a numeric feature of 2"):
        FeatureLookup(specs, {"kind": kind, "usd": usd[0]})
    with pytest.raises(ValueError, match="'kind' holds indexes from 0 to 3; they lie in 0 to 2"):
        FeatureLookup(specs, {"kind": np.array([0, 3]), "usd": usd})
    with pytest.raises(ValueError, match="needs arrays, or vocab_size"):
        FeatureLookup(specs)
    with pytest.raises(ValueError, match=r"names of their own, one at the least; got \[\]"):
        FeatureLookup((), vocab_size=3)


def test_tokens_are_rows_means_of_rows_and_dense_maps():
    layer = FeatureEmbedding(ENCODING, 4)
    tokens = numpy(layer(ARRAYS))
    brands, tags = (numpy(layer.table_of(name)) for name in ("brand", "tags"))
    np.testing.assert_array_equal(tokens[:, 0], brands[ARRAYS["brand"]])
    first, third = ARRAYS["tags"][0, :2], ARRAYS["tags"][2]
    np.testing.assert_allclose(tokens[0, 1], tags[first].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(tokens[2, 1], tags[third].mean(axis=0), rtol=1e-6)
    # Without any tag, and where tags are missing, there is the vector of the missing.
    np.testing.assert_array_equal(tokens[[1, 3], 1], tags[[0, 0]])
    kernel, bias = (numpy(weight) for weight in layer._maps[0].weights)
    np.testing.assert_allclose(tokens[:, 3], ARRAYS["price"] @ kernel + bias, atol=1e-7)
    sessions = {name: np.stack([array, array[::-1]]) for name, array in ARRAYS.items()}
    np.testing.assert_array_equal(numpy(layer(sessions)), [tokens, tokens[::-1]])
    with pytest.raises(ValueError, match=r"\['brand'\] are missing; there are \['a title', "):
        layer({name: values for name, values in ARRAYS.items() if name != "brand"})
    with pytest.raises(KeyError, match="'price' has no table"):
        layer.table_of("price")


def test_order_and_repeats_of_features_do_not_matter_but_their_meeting_does():
    encoder = ItemEncoder(ENCODING.specs, 4)
    one = numpy(encoder(ARRAYS))
    turned = {name: ARRAYS[name] for name in reversed(list(ARRAYS))}
    np.testing.assert_array_equal(numpy(encoder(turned)), one)
    assert np.abs(one[0] - one[1]).max() > 1e-3


def test_a_single_feature_is_encoded_without_a_warning(recwarn):
    encoding = FeatureEncoding.fit({"usd": [5, 9]})
    encoder = ItemEncoder(encoding, 4)
    assert tuple(encoder(encoding.encode({"usd": [5, None, 7]})).shape) == (3, 4)
    assert not [warning for warning in recwarn if "softmax" in str(warning.message)]


def test_a_vector_is_that_of_the_index_and_that_of_the_features():
    layer = ItemEmbedding(8, 4, features=lookup())
    items = np.array([3, 0, 7, 6], np.int32)
    found = numpy(layer(ops.convert_to_tensor(items)))
    table = numpy(layer.table)
    encoded = numpy(layer.feature_encoder(layer.features(ops.convert_to_tensor(items))))
    np.testing.assert_allclose(found, table[items] + encoded, atol=1e-6)
    np.testing.assert_allclose(numpy(layer.all_rows())[items], found, atol=1e-6)
    # Reserved indexes and the item without features share what stands for no features.
    np.testing.assert_allclose((found - table[items])[1], (found - table[items])[2], atol=1e-6)
    layer.seen.assign(np.arange(8)[:, None] != 3)
    found = numpy(layer(ops.convert_to_tensor(items)))
    np.testing.assert_allclose(found[0], encoded[0], atol=1e-6)
    np.testing.assert_allclose(numpy(layer.all_rows())[items], found, atol=1e-6)
    plain = ItemEmbedding(8, 4)
    plain.build()
    assert plain.all_rows() is plain.table


def test_a_large_catalogue_is_encoded_in_chunks(monkeypatch):
    monkeypatch.setattr("tfrec_llm.layers.item_embedding._CHUNK", 3)
    layer = ItemEmbedding(8, 4, features=lookup())
    layer.build()
    whole = numpy(layer.all_rows(training=True))
    np.testing.assert_allclose(numpy(layer.all_rows()), whole, atol=1e-6)


def test_dropped_ids_leave_their_features_and_those_without_any_stay():
    layer = ItemEmbedding(8, 4, features=lookup(), id_dropout=0.5)
    items = ops.convert_to_tensor(np.tile(np.arange(8, dtype=np.int32), (400, 1)))
    inferred, trained = numpy(layer(items)), numpy(layer(items, training=True))
    alone = inferred[0] - numpy(layer.table)
    changed = np.abs(trained - inferred).max(axis=2) > 1e-6
    assert not changed[:, [0, 1, 2, 7]].any()
    share = changed[:, 3:7].mean()
    assert 0.4 < share < 0.6
    np.testing.assert_allclose(
        trained[changed], np.broadcast_to(alone, trained.shape)[changed], atol=1e-6
    )
    others = numpy(layer(items, training=True))
    assert (np.abs(others - trained).max(axis=2) > 1e-6).any()


def test_arguments_of_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="features has 8 rows; vocab_size is 9"):
        ItemEmbedding(9, 4, features=lookup())
    with pytest.raises(ValueError, match="need features"):
        ItemEmbedding(8, 4, id_dropout=0.1)
    with pytest.raises(ValueError, match=r"id_dropout must lie in 0..1, below 1, got 1"):
        ItemEmbedding(8, 4, features=lookup(), id_dropout=1.0)
    with pytest.raises(ValueError, match="gives vectors of 8; emb_dim is 4"):
        ItemEmbedding(8, 4, features=lookup(), feature_encoder=ItemEncoder(ENCODING.specs, 8))
    with pytest.raises(ValueError, match="emb_dim must be positive, got 0"):
        FeatureEmbedding(ENCODING, 0)
