"""Recommenders that know items by their features, new items among them."""

import keras
import numpy as np
import pyarrow as pa
import pytest

import tfrec_llm as tr
from tfrec_llm.errors import DataError, MissingColumnError

SMALL = {"emb_dim": 16, "num_layers": 1, "max_length": 10, "precision": "float32", "dropout": 0.0}
KINDS, EACH = ("tops", "skirts", "hats"), 8
# One item of each kind was never bought.
NEW = [f"{kind}7" for kind in KINDS]


def catalogue():
    items = [f"{kind}{number}" for kind in KINDS for number in range(EACH)]
    table = pa.table(
        {
            "item": items,
            "kind": [item.rstrip("0123456789") for item in items],
            "price": [float(number % 4) for number in range(len(items))],
            "empty": pa.nulls(len(items), pa.float64()),
        }
    )
    return tr.data.Catalogue(table)


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        numbers = rng.permutation(EACH - 1)[:6]
        rows += [(user, f"{KINDS[user % 3]}{number}", time) for time, number in enumerate(numbers)]
    user, item, time = zip(*rows, strict=True)
    table = pa.table({"user": user, "item": item, "time": time})
    return tr.data.BehaviorLog.from_arrow(table, catalogue=catalogue())


def made(**options):
    options = {
        "item_features": ["kind", "price"],
        "learning_rate": 0.01,
        "loss": "catalog",
    } | options
    return tr.Recommender(**SMALL | options)


@pytest.fixture(scope="module")
def fitted(log):
    return made(new_items=True).fit(log, epochs=12, verbose=0)


def kinds_of(items):
    return [item.rstrip("0123456789") for item in items]


def scores(rec, log):
    return rec.score(rec.sequences(log))


def test_new_items_are_recommended_to_those_who_like_what_is_like_them(fitted):
    assert set(fitted.vocabulary.ids.to_pylist()) == set(catalogue().ids.to_pylist())
    assert fitted.vocabulary.counts[fitted.vocabulary.encode(NEW)].tolist() == [0, 0, 0]
    histories = [[f"{kind}{number}" for number in (0, 1, 2)] for kind in KINDS]
    best = fitted.recommend(histories=histories, k=1, candidates=NEW)
    assert best["item"].to_list() == NEW
    # Among all items a new one stands with its kind, before every other kind.
    shown = fitted.recommend(histories=histories, k=EACH - 3)
    assert kinds_of(shown["item"]) == [kind for kind in KINDS for _ in range(EACH - 3)]
    assert set(NEW) <= set(shown["item"])
    nearest = fitted.similar_items(NEW, k=2)
    assert kinds_of(nearest["similar"]) == [kind for kind in KINDS for _ in range(2)]


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "masked", "loss": "sampled", "optimizer": "lazy_adam"},
        {"tie_embeddings": False, "weight_averaging": 0.5, "similarity": "cosine"},
        {"precision": "mixed_bfloat16", "feature_options": {"num_layers": 0, "id_dropout": 0.5}},
    ],
)
def test_saved_recommenders_score_equally_and_train_on(options, log, tmp_path):
    rec = made(new_items=True, **options).fit(log, validation=log, epochs=2, verbose=0)
    expected = scores(rec, log)
    assert np.isfinite(expected[:, 3:]).all()
    rec.save(tmp_path / "shop")
    again = tr.Recommender.load(tmp_path / "shop")
    np.testing.assert_array_equal(scores(again, log), expected)
    assert again.evaluate(log, k=3).to_pandas().equals(rec.evaluate(log, k=3).to_pandas())
    assert again.recommend(k=3).equals(rec.recommend(k=3))
    predicted = again.model.predict(
        tr.data.padded_batches(again.sequences(log), max_length=10), verbose=0
    )
    np.testing.assert_allclose(np.asarray(predicted)[:, 3:], expected[:, 3:], atol=1e-4)
    again.fit(log, epochs=1, warm_start=True, verbose=0)
    assert np.abs(scores(again, log) - expected)[:, 3:].max() > 1e-6
    seen = keras.ops.convert_to_numpy(again.model.output_layer.seen)[:, 0]
    assert seen[again.vocabulary.encode(NEW)].tolist() == [0, 0, 0]
    assert seen.sum() == len(seen) - 3


def test_items_join_by_their_features_and_the_old_scores_stay(log, tmp_path):
    rec = made().fit(log, epochs=12, verbose=0)
    assert NEW[0] not in rec.vocabulary
    before = scores(rec, log)
    rec.extend(NEW)  # the log's catalogue knows them
    newest = tr.data.Catalogue(pa.table({"item": ["hats99"], "kind": ["hats"], "price": [1]}))
    rec.extend(["hats99", "unheard"], catalogue=newest)
    after = scores(rec, log)
    np.testing.assert_allclose(after[:, : before.shape[1]], before, atol=1e-5)
    assert np.isfinite(after[:, -5:]).all()
    histories = [[f"{kind}{number}" for number in (0, 1, 2)] for kind in KINDS]
    best = rec.recommend(histories=histories, k=2, candidates=[*NEW, "hats99"])
    assert best["item"].to_list()[0::2][:2] == NEW[:2]
    assert set(best["item"].to_list()[-2:]) == {"hats7", "hats99"}
    assert rec.catalogue.describe("hats99") == "hats, 1.00"
    assert rec.catalogue.describe("tops0", columns=["kind"]) == "tops"
    rec.save(tmp_path / "grown")
    again = tr.Recommender.load(tmp_path / "grown")
    np.testing.assert_array_equal(scores(again, log), after)
    # What the log then holds gets a vector of its own, the others wait on.
    more = tr.data.BehaviorLog.from_arrow(
        pa.table({"user": [1, 1, 1], "item": ["hats99", "hats1", "hats99"], "time": [1, 2, 3]})
    )
    again.fit(more, epochs=1, warm_start=True, verbose=0)
    seen = keras.ops.convert_to_numpy(again.model.output_layer.seen)[:, 0]
    assert seen[again.vocabulary.encode(["hats99", "tops0", *NEW])].tolist() == [1, 1, 0, 0, 0]
    assert again.catalogue.describe("hats99") == "hats, 1.00"


def test_newer_features_replace_those_there_are(fitted, log, tmp_path):
    fitted.save(tmp_path / "shop")
    rec = tr.Recommender.load(tmp_path / "shop")
    table = catalogue().table
    table = table.set_column(2, "price", pa.array([9.0] * len(table)))
    newer = tr.data.BehaviorLog(log.table, catalogue=tr.data.Catalogue(table))
    rec.fit(newer, epochs=1, warm_start=True, verbose=0)
    lookup = rec.model.encoder.item_embedding.features
    prices = keras.ops.convert_to_numpy(lookup(keras.ops.arange(rec.vocabulary.size))["price"])
    expected = lookup.encoding.encode({"kind": ["hats"], "price": [9.0]})["price"]
    np.testing.assert_array_equal(prices[3:], np.repeat(expected, rec.vocabulary.size - 3, axis=0))


def test_rare_items_are_known_by_their_features_alone(log):
    rows = log.table.slice(0, 6)
    rare = tr.data.BehaviorLog(
        pa.concat_tables(
            [log.table, rows.set_column(1, "item", pa.array([NEW[0]] * 6)).slice(0, 1)]
        ),
        catalogue=log.catalogue,
    )
    rec = made(new_items=True, min_count=2).fit(rare, epochs=1, verbose=0)
    seen = keras.ops.convert_to_numpy(rec.model.output_layer.seen)[:, 0]
    assert seen[rec.vocabulary.encode(NEW)].tolist() == [0, 0, 0]
    assert rec.vocabulary.counts[2] == 1


def test_what_cannot_be_read_by_features_is_told(log):
    bare = tr.data.BehaviorLog(log.table)
    with pytest.raises(DataError, match="item_features need a catalogue, and the log has none"):
        made().fit(bare, epochs=1, verbose=0)
    with pytest.raises(DataError, match=r"'empty' has no value in the 21 rows.*columns="):
        made(item_features=True).fit(log, epochs=1, verbose=0)
    with pytest.raises(MissingColumnError, match="no column 'colour'"):
        made(item_features=["colour"]).fit(log, epochs=1, verbose=0)
    with pytest.raises(ValueError, match="item_features is a list of names, or True; got 'kind'"):
        made(item_features="kind")
    with pytest.raises(ValueError, match="new_items and feature_options need item_features"):
        tr.Recommender(new_items=True)
    with pytest.raises(ValueError, match="depth"):
        made(feature_options={"depth": 3})
    with pytest.raises(ValueError, match="num_heads must divide"):
        made(feature_options={"num_heads": 3})
    with pytest.raises(ValueError, match="id_dropout must lie"):
        made(feature_options={"id_dropout": 1.5})


def test_a_compressed_recommender_keeps_what_features_add(fitted, log):
    small = tr.evaluation.CompressedScorer.of(fitted, kind="float16")
    np.testing.assert_allclose(scores(small, log)[:, 3:], scores(fitted, log)[:, 3:], atol=0.02)
