"""Behaviour models that read and score items by their features, too."""

import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import FeatureEncoding, UserSequences, next_batches
from tfrec_llm.data.batches import padded_batch
from tfrec_llm.layers import FeatureLookup, ItemEmbedding
from tfrec_llm.losses import CatalogCrossEntropy, SampledCrossEntropy
from tfrec_llm.models import BehaviorEncoder, MaskedBehaviorModel, NextBehaviorModel
from tfrec_llm.optimizers import LazyAdam

ITEMS = 20
LOSSES = [CatalogCrossEntropy(), SampledCrossEntropy(200, seed=0)]


def lookup():
    rng = np.random.default_rng(0)
    columns = {"kind": rng.integers(0, 4, ITEMS - 3).astype(str), "usd": rng.normal(size=ITEMS - 3)}
    encoding = FeatureEncoding.fit(columns)
    known = encoding.encode(columns)
    missing = encoding.missing(3)
    layer = FeatureLookup(
        encoding, {name: np.concatenate([missing[name], known[name]]) for name in known}
    )
    layer.build()
    return layer


def encoder_of(**options):
    embedding = ItemEmbedding(ITEMS, 8, features=lookup(), **options)
    return BehaviorEncoder(ITEMS, 8, 1, 2, max_length=8, dropout=0.0, item_embedding=embedding)


def built(model_class=NextBehaviorModel, *, id_dropout=0.0, **options):
    model = model_class(encoder_of(id_dropout=id_dropout), **options)
    model.build()
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


def unseen(model, *items):
    seen = np.ones((ITEMS, 1), np.float32)
    seen[list(items)] = 0
    model.encoder.item_embedding.seen.assign(seen)


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return UserSequences(rng.integers(3, ITEMS, offsets[-1]).astype("int32"), offsets)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def test_a_model_of_items_with_features_is_a_sound_keras_model(sequences):
    run_layer_test(
        NextBehaviorModel,
        {"encoder": encoder_of()},
        padded_batch(sequences, max_length=8),
        output_shape=(40, ITEMS),
        mixed_dtype="float32",
        training_batch=next_batches(sequences, max_length=8, batch_size=100)[0],
    )


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_scores_are_products_with_whole_vectors(similarity, sequences):
    model = built(similarity=similarity)
    embedding = model.encoder.item_embedding
    vectors = numpy(embedding(ops.arange(ITEMS)))
    assert np.abs(vectors - numpy(model.table)).max() > 0.1
    if similarity == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(numpy(model.item_vectors), vectors, atol=1e-5)
    np.testing.assert_allclose(
        numpy(model.vectors_of(ops.array([[4]])))[0, 0], vectors[4], atol=1e-5
    )
    batch = padded_batch(sequences, max_length=8)
    hidden = numpy(model(model.asking(batch)))[:, 0]
    np.testing.assert_allclose(numpy(model(batch)), hidden @ vectors.T, atol=1e-4)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_losses_are_those_of_the_scores_of_what_was_seen(similarity, sequences):
    model = built(similarity=similarity)
    unseen(model, 5, 9)
    inputs, targets = next_batches(sequences, max_length=8, batch_size=100)[0]
    hidden = numpy(model(inputs))
    seen = [item for item in range(3, ITEMS) if item not in (5, 9)]
    logits = hidden @ numpy(model.item_vectors).T
    entropy = np.log(np.exp(logits[..., seen]).sum(-1))
    hit = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    asked = np.isin(targets, seen)
    assert 0 < asked.sum() < (targets >= 3).sum()
    expected = (entropy - hit)[asked].mean()
    model.compile("sgd", CatalogCrossEntropy())
    assert model.evaluate(inputs, targets, batch_size=100, verbose=0) == pytest.approx(
        expected, rel=1e-4
    )
    # A sample of many is near the whole.
    model.compile("sgd", SampledCrossEntropy(20_000, seed=0))
    sampled = model.evaluate(inputs, targets, batch_size=100, verbose=0)
    count = np.log(20_000 / (ITEMS - 3))
    others = np.exp(entropy) - np.exp(hit)
    corrected = np.log(others + np.exp(hit - count)) - hit + count
    assert sampled == pytest.approx(corrected[asked].mean(), rel=0.02)


@pytest.mark.parametrize(
    ("loss", "optimizer"), list(zip(LOSSES, ["adam", LazyAdam(1e-2)], strict=True))
)
def test_what_was_not_seen_is_no_negative_and_keeps_no_vector_of_its_own(
    loss, optimizer, sequences
):
    keras.utils.set_random_seed(0)
    kept = sequences.items.copy()
    kept[np.isin(kept, (5, 9))] = 3
    model = built(id_dropout=0.3)
    unseen(model, 5, 9)
    before = numpy(model.table).copy()
    model.compile(optimizer if isinstance(optimizer, str) else LazyAdam(1e-2), loss)
    batches = next_batches(UserSequences(kept, sequences.offsets), max_length=8, batch_size=4)
    losses = model.fit(batches, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    changed = (numpy(model.table) != before).any(axis=1)
    assert not changed[[5, 9]].any()
    assert changed[3:].sum() == ITEMS - 3 - 2
    own = numpy(model.item_vectors) - numpy(
        model.encoder.item_embedding.feature_encoder(
            model.encoder.item_embedding.features(ops.arange(ITEMS))
        )
    )
    np.testing.assert_allclose(own[[5, 9]], 0, atol=1e-5)
    np.testing.assert_allclose(own[3], numpy(model.table)[3], atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="draws differ by backend")
def test_sparse_rows_step_as_dense_ones_where_items_have_features(sequences):
    def weights(optimizer):
        keras.utils.set_random_seed(0)
        model = built()
        model.compile(optimizer, loss=SampledCrossEntropy(16, seed=1))
        inputs, targets = next_batches(sequences, batch_size=100, max_length=8)[0]
        model.train_on_batch(inputs, targets)
        return model.get_weights()

    class Dense(LazyAdam):
        takes_sparse_rows = False

    for found, expected in zip(
        weights(LazyAdam(0.01, epsilon=1e-3)), weights(Dense(0.01, epsilon=1e-3)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_saved_model_with_features_scores_equally_and_trains_on(sequences, tmp_path):
    model = built(MaskedBehaviorModel, id_dropout=0.2)
    unseen(model, 5)
    model.compile("adam")
    batch = padded_batch(sequences, max_length=8)
    expected = model.predict(batch, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(batch, verbose=0), expected)
    assert loaded.encoder.item_embedding.features.encoding is not None
    inputs, targets = next_batches(sequences, max_length=8, batch_size=100)[0]
    inputs["target_positions"] = inputs["target_positions"].copy()
    first = loaded.fit(inputs, targets, batch_size=100, verbose=0).history["loss"][0]
    assert np.isfinite(first)


def test_a_second_table_needs_features_too():
    with pytest.raises(ValueError, match=r"pass output_embedding=ItemEmbedding\(..., features"):
        NextBehaviorModel(encoder_of(), tie_embeddings=False)
    second = ItemEmbedding(ITEMS, 8, features=lookup(), name="output_embedding")
    model = NextBehaviorModel(encoder_of(), tie_embeddings=False, output_embedding=second)
    model.build()
    assert tuple(model.item_vectors.shape) == (ITEMS, 8)
