import json

import keras
import numpy as np
import pyarrow as pa
import pytest
from serving_shop import shop_log

import tfrec_llm as tr
from tfrec_llm.errors import SavedModelError
from tfrec_llm.layers.compressed_table import CompressedTable
from tfrec_llm.models.replaced_tables import ranking_with_table
from tfrec_llm.serving import export_ranking_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported by TensorFlow", allow_module_level=True)
import tensorflow as tf

from tfrec_llm.serving.warmup import read_warmup

SIZES = {"emb_dim": 8, "num_layers": 1, "max_length": 6, "dropout": 0.0}


@pytest.fixture(scope="module")
def impressions():
    """What was shown to users known and not, of items known and not, with a context."""
    log = shop_log(20)
    rng = np.random.default_rng(1)
    rows, items = 90, log.catalogue.ids.to_pylist()
    columns = {
        "user": rng.choice([*(f"u{user}" for user in range(20)), "new"], rows),
        "item": rng.choice([*items[2:], "never seen"], rows),
        "time": rng.integers(0, 14, rows),
        "device": rng.choice(["phone", "desk", ""], rows),
        "price": [None if rng.random() < 0.2 else float(rng.integers(1, 90)) for _ in range(rows)],
        "pages": [list(rng.choice(["a", "b", "c"], rng.integers(0, 3))) for _ in range(rows)],
        "look": [list(map(float, rng.normal(size=3))) for _ in range(rows)],
    }
    return tr.data.BehaviorLog(pa.table(columns), history=log)


@pytest.fixture(scope="module")
def vocabularies(impressions):
    items = impressions.history.item.to_pylist()
    return {
        "vocabulary": tr.data.Vocabulary.fit([item for item in items if item != "hats-3"]),
        "candidates": tr.data.Vocabulary.fit(impressions.item.to_pylist()[:60]),
        "profiles": tr.data.Vocabulary([f"u{user}" for user in range(15)]),
    }


def encoding_of(impressions):
    columns = ["device", "price", "pages", "look"]
    types = {"device": "categorical", "pages": "multi", "look": "vector"}
    table = impressions.table.slice(0, 50)
    return tr.data.FeatureEncoding.fit(table, columns=columns, types=types)


def wide(model):
    """Weights so wide that what should not be read would show."""
    model.build()
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def raw_request(impressions, padding, kinds):
    """Asks for every impression in a row of its own, with all that came before it."""
    table, history = impressions.table, impressions.history
    log = sorted(
        zip(*(history.table[name].to_pylist() for name in ("time", "user", "item", "behavior")),
            strict=True),
        key=lambda row: row[0],
    )  # fmt: skip
    before = [
        [(item, kind) for then, own, item, kind in log if own == user and then < time]
        for user, time in zip(table["user"].to_pylist(), table["time"].to_pylist(), strict=True)
    ]
    width = 2 + max(map(len, before))
    filled = [[*own, *[(padding, "")] * (width - len(own))] for own in before]
    asked = {
        "history": [[item for item, _ in row] for row in filled],
        "candidates": [[item, padding] for item in table["item"].to_pylist()],
    }
    if kinds:
        asked["behaviors"] = [[kind for _, kind in row] for row in filled]
    return {name: tf.constant(values) for name, values in asked.items()}


def test_probabilities_of_raw_ids_are_those_of_predict(impressions, vocabularies, tmp_path):
    encoding, kinds = encoding_of(impressions), ("view", "buy")
    sizes = {name: found.size for name, found in vocabularies.items()}
    model = wide(
        tr.models.ClickModel(
            tr.models.BehaviorEncoder(sizes["vocabulary"], num_behaviors=2, **SIZES),
            candidate_embedding=tr.layers.ItemEmbedding(sizes["candidates"], 8),
            user_embedding=tr.layers.UserEmbedding(sizes["profiles"], 8),
            context=tr.layers.FeatureEmbedding(encoding.specs, 8),
        )
    )
    options = vocabularies | {"context": encoding, "behaviors": kinds}
    folder = export_ranking_model(model, tmp_path / "clicks", **options)
    batches = tr.data.ranking_batches(impressions, **options, labels=None, max_length=6)
    expected = model.predict(batches)
    loaded = tf.saved_model.load(str(folder))
    served = loaded.signatures["serving_default"]
    asked = raw_request(impressions, "", kinds)
    asked["user"] = tf.constant(impressions.user.to_pylist())
    table = impressions.table
    price = [np.nan if value is None else value for value in table["price"].to_pylist()]
    pages = [[*values, "", "", ""][:3] for values in table["pages"].to_pylist()]
    for name, values in (
        ("device", table["device"].to_pylist()),
        ("price", price),
        ("pages", pages),
        ("look", table["look"].to_pylist()),
    ):
        dtype = tf.string if name in ("device", "pages") else tf.float64
        asked[f"context_{name}"] = tf.stack([tf.constant(values, dtype)] * 2, axis=1)
    found = served(**asked)
    known = [item in vocabularies["candidates"] for item in table["item"].to_pylist()]
    assert found["known"].numpy().tolist() == [[one, False] for one in known]
    assert set(found) == {"probabilities", "known"}
    np.testing.assert_allclose(found["probabilities"].numpy()[:, 0], expected, atol=2e-6)
    assert not found["probabilities"].numpy()[:, 1].any()
    warmup = list(read_warmup(folder))
    assert {name for name, _ in warmup} == set(loaded.signatures)
    assert all(loaded.signatures[name](**{n: tf.constant(v) for n, v in asked.items()})
               for name, asked in warmup)  # fmt: skip
    about = json.loads((folder / "assets.extra" / "tfrec_llm.json").read_text())
    assert about["behaviors"] == ["view", "buy"]
    assert about["padding"]["history"] == ""


def test_models_of_several_labels_and_that_read_both_ways_are_exported_too(
    impressions, vocabularies, tmp_path
):
    vocabulary = vocabularies["vocabulary"]
    encoder = tr.models.BehaviorEncoder(vocabulary.size, causal=False, **SIZES)
    model = wide(tr.models.ConversionModel(encoder))
    folder = export_ranking_model(
        model, tmp_path / "clicks" / "7", vocabulary, rank_by="conversion"
    )
    plain = tr.data.BehaviorLog(impressions.table, history=impressions.history)
    batches = tr.data.ranking_batches(
        plain, vocabulary, labels=None, max_length=6, histories="masked"
    )
    expected = model.predict(batches)
    loaded = tf.saved_model.load(str(folder))
    served = loaded.signatures["serving_default"]
    found = served(**raw_request(impressions, "", ()))
    assert set(found) == {*expected, "known"}
    for task, values in expected.items():
        np.testing.assert_allclose(found[task].numpy()[:, 0], values, atol=2e-6)
    check_lists(loaded.signatures, raw_request(impressions, "", ()), "conversion")
    folder = export_ranking_model(model, tmp_path / "clicks", vocabulary, precision="int8")
    small = tf.saved_model.load(str(folder)).signatures["score"]
    found = small(**raw_request(impressions, "", ()))
    # What `predict` says where the items' vectors, and nothing else, are rounded.
    rounded = ranking_with_table(
        model, lambda layer: CompressedTable.of_layer(layer, kind="int8")
    ).predict(batches)
    for task, values in expected.items():
        np.testing.assert_allclose(found[task].numpy()[:, 0], rounded[task], atol=2e-6)
        assert np.abs(rounded[task] - values).max() > 1e-5, "nothing was rounded"


def check_lists(signatures, asked, rank_by):
    """Asks for lists of all candidates that are shown to anybody, and for users' vectors."""
    rows = len(asked["candidates"])
    shown = asked["candidates"][:7, 0]
    asked["candidates"] = tf.tile(tf.concat([[""], shown], 0)[None], [rows, 1])
    scored = {name: values.numpy() for name, values in signatures["score"](**asked).items()}
    k = np.resize([3, 0, 20], rows).astype(np.int32)
    found = signatures["recommend"](**asked, k=tf.constant(k))
    found = {name: values.numpy() for name, values in found.items()}
    assert set(found) == {"items", *scored}
    for row, length in enumerate(np.minimum(k, 7)):
        order = 1 + np.argsort(-scored[rank_by][row, 1:], kind="stable")[:length]
        candidates = asked["candidates"][row].numpy()
        assert found["items"][row].tolist() == [*candidates[order], *[b""] * (8 - length)]
        for name, values in scored.items():
            assert found[name][row, :length].tolist() == values[row, order].tolist()
            assert not found[name][row, length:].any()
    read = {name: values for name, values in asked.items() if name in ("history", "behaviors")}
    vectors = signatures["embed"](**read)["embeddings"].numpy()
    empty = (asked["history"].numpy() == b"").all(axis=1)
    assert vectors.shape == (rows, 8)
    assert empty.any()
    assert (np.abs(vectors).sum(axis=1) == 0).tolist() == empty.tolist()


def test_what_does_not_belong_together_is_told(impressions, vocabularies, tmp_path):
    vocabulary = vocabularies["vocabulary"]
    model = tr.models.ClickModel(tr.models.BehaviorEncoder(vocabulary.size, **SIZES))
    with pytest.raises(ValueError, match="do not belong together"):
        export_ranking_model(model, tmp_path / "1", vocabularies["profiles"])
    with pytest.raises(ValueError, match="profiles go with"):
        export_ranking_model(model, tmp_path / "1", vocabulary, profiles=vocabularies["profiles"])
    with pytest.raises(ValueError, match="that is not the same"):
        export_ranking_model(model, tmp_path / "1", vocabulary, context=encoding_of(impressions))
    with pytest.raises(ValueError, match="0 kinds of behaviour, and 1 are named"):
        export_ranking_model(model, tmp_path / "1", vocabulary, behaviors=["view"])
    with pytest.raises(ValueError, match="rank_by must be one of"):
        export_ranking_model(model, tmp_path / "1", vocabulary, rank_by="conversion")
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedModelError, match="is a file"):
        export_ranking_model(model, tmp_path / "file", vocabulary)
