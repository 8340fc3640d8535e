import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from serving_shop import shop_split

import tfrec_llm as tr
from tfrec_llm.errors import NotFittedError, SavedModelError, UnknownItemError
from tfrec_llm.serving import ExportedModel, export_model


@pytest.fixture(scope="module", params=["shop", "numbers"])
def pair(request, tmp_path_factory):
    """A recommender and what was exported of it."""
    if request.param == "shop":
        return request.getfixturevalue("shop"), request.getfixturevalue("exported_shop")
    rec = request.getfixturevalue("numbers")
    return rec, ExportedModel(rec.export(tmp_path_factory.mktemp("export") / "numbers" / "1"))


def told(rec):
    """Returns the users' histories as raw ids and kinds of behaviour, as a client sends them."""
    known = rec.histories
    offsets = known.offsets[1:-1]
    raw = [part.tolist() for part in np.split(rec.vocabulary.decode(known.items), offsets)]
    stranger = "never seen" if isinstance(rec.vocabulary.ids[0].as_py(), str) else 10**9
    items = [[stranger if item is None else item for item in history] for history in raw]
    if known.behaviors is None:
        return items, None
    names = np.array(["", *known.behavior_vocabulary], object)
    return items, [part.tolist() for part in np.split(names[known.behaviors], offsets)]


def test_scores_are_those_of_evaluate_and_recommend(pair):
    rec, model = pair
    histories, behaviors = told(rec)
    expected = rec.score(rec.histories)[:, 3:]
    everything = [rec.vocabulary.ids.to_pylist()] * len(histories)
    scores = model.score(histories, everything, behaviors=behaviors)
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    vectors = model.embed(histories, behaviors=behaviors)
    items = model.embed_items(rec.vocabulary.ids.to_pylist())
    np.testing.assert_allclose(vectors @ items.T, expected, atol=2e-5)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_lists_are_those_of_recommend(pair, filter_seen):
    rec, model = pair
    histories, behaviors = told(rec)
    found = model.recommend(histories, k=7, behaviors=behaviors, filter_seen=filter_seen)
    expected = rec.recommend(k=7, filter_seen=filter_seen)
    assert [item for one in found for item in one.items] == expected["item"].to_list()
    scores = [score for one in found for score in one.scores]
    np.testing.assert_allclose(scores, expected["score"], atol=2e-5)
    assert {one.source for one in found} == {"model"}


def test_a_new_user_gets_what_is_popular_and_the_response_says_so(pair):
    rec, model = pair
    (found,) = model.recommend([[]], k=5)
    expected = rec.recommend(histories=[[]], k=5)
    assert (found.items, found.source) == (expected["item"].to_list(), "popularity")
    assert found.scores == expected["score"].to_list()
    assert model.cold_start.recommend(5) == found
    assert model.cold_start.recommend(4, without=found.items[:1]).items == found.items[1:]


def test_every_user_has_an_own_length_and_own_exclusions(pair):
    _, model = pair
    ids = model.vocabulary.ids.to_pylist()
    histories = [ids[:2], ids[3:9]]
    alone = [model.recommend([history], k=5)[0] for history in histories]
    found = model.recommend(histories, k=[2, 4], exclude=[alone[0].items[:1], []])
    assert [one.items for one in found] == [alone[0].items[1:3], alone[1].items[:4]]
    everything = model.recommend([ids], k=5, filter_seen=True)
    assert everything[0].items == []
    assert len(model.recommend([[]], k=1000)[0].items) == len(ids)


def test_padding_may_stand_anywhere_and_long_histories_count_by_their_newest(pair):
    _, model = pair
    ids = model.vocabulary.ids.to_pylist()
    pad = model.padding
    asked = {"items": model.padded([ids] * 3)}
    behaviors = {} if model.behaviors is None else {"behaviors": np.full((3, 12), "", object)}
    rows = [
        [pad, pad, pad, pad, pad, pad, pad, pad, ids[4], ids[1], ids[2], ids[3]],
        [ids[4], pad, ids[1], pad, ids[2], ids[3], pad, pad, pad, pad, pad, pad],
        [ids[9], ids[8], *ids[:10]],
    ]
    history = model.padded(rows)[:, -12:]
    found = model.call("score", {"history": history, **behaviors, **asked})["scores"]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    newest = model.score([ids[:10]], [ids])
    np.testing.assert_allclose(found[2, -len(ids) :], newest[0], atol=1e-5)


def test_unknown_items_have_no_score(exported_shop):
    ids = exported_shop.vocabulary.ids.to_pylist()
    scores = exported_shop.score([[ids[0]], []], [["no such", ids[1]], [ids[0]]])
    assert scores[0][0] is None
    assert scores[0][1] is not None
    assert scores[1] == [float(exported_shop.vocabulary.counts[3])]
    assert not exported_shop.embed_items(["no such"]).any()


def test_tensorflow_alone_serves_it_by_the_default_signature(exported_shop):
    loaded = tf.saved_model.load(str(exported_shop.path))
    assert set(loaded.signatures) == {
        "serving_default",
        "recommend",
        "score",
        "embed",
        "embed_items",
    }
    ids = exported_shop.vocabulary.ids.to_pylist()
    found = loaded.signatures["serving_default"](history=tf.constant([["", ids[0]], ["", ""]]))
    assert found["items"].shape == (2, 10)
    assert found["source"].numpy().tolist() == [b"model", b"popularity"]
    expected = exported_shop.recommend([[ids[0]]])[0].items
    assert [item.decode() for item in found["items"].numpy()[0]] == expected


def test_versions_count_up_and_one_is_there_whole_or_not_at_all(
    shop, exported_shop, tmp_path, monkeypatch
):
    folder = tmp_path / "shop"
    (folder / "5").mkdir(parents=True)
    (folder / "notes").mkdir()
    monkeypatch.setattr(tf.saved_model, "save", _fail)
    with pytest.raises(SavedModelError, match=r"shop/6: the disk is full"):
        shop.export(folder)
    monkeypatch.undo()
    assert sorted(entry.name for entry in folder.iterdir()) == ["5", "notes"]
    shutil.copytree(exported_shop.path, folder / "6")
    assert shop.export(folder / "6", k=3) == folder / "6"
    assert ExportedModel(folder / "6").description["k"] == 3
    (folder / "5" / "saved_model.pb").write_text("of another program")
    with pytest.raises(SavedModelError, match="other files"):
        shop.export(folder / "5")


def _fail(*arguments, **options):
    raise OSError("the disk is full")


def test_smaller_tables_and_an_index_rank_nearly_alike_what_may_be(shop, exported_shop, tmp_path):
    ids = shop.vocabulary.ids.to_pylist()
    options = {"candidates": ids[:6], "exclude": [ids[2], "never seen"]}
    with pytest.raises(UnknownItemError):
        shop.export(tmp_path / "shop", candidates=["never seen"])
    pytest.importorskip("faiss")
    options |= {"precision": "int8", "index": "approximate"}
    small = ExportedModel(shop.export(tmp_path / "shop" / "2", **options))
    allowed = [*ids[:2], *ids[3:6]]
    assert sorted(small.recommend([[]], k=20)[0].items) == sorted(allowed)
    histories = [ids[:3], ids[5:9]]
    scores = np.array(small.score(histories, [ids, ids]))
    exact = np.array(exported_shop.score(histories, [ids, ids]))
    assert 0 < np.abs(scores - exact).max() < 0.1 * np.abs(exact).max()
    best = small.recommend(histories, k=24, filter_seen=False)
    assert all(set(one.items) <= set(allowed) for one in best)
    assert small.recommend([[]], k=3) == [small.cold_start.recommend(3)]
    kept = small.recommend(histories, k=[1, 2], exclude=[best[0].items[:1], ["new"]])
    assert [len(one.items) for one in kept] == [1, 2]
    assert not {*histories[0], best[0].items[0]} & set(kept[0].items)
    assert small.index is not None
    small.index.probes = 100
    best = small.recommend(histories, k=24, filter_seen=False)
    assert [sorted(one.items) for one in best] == [sorted(allowed)] * 2
    order = scores[0][[ids.index(item) for item in best[0].items]]
    np.testing.assert_allclose(best[0].scores, order, atol=1e-5)


def test_large_catalogues_are_ranked_in_blocks(tmp_path, monkeypatch):
    from tfrec_llm.serving import graph

    monkeypatch.setattr(graph, "_WIDEST", 64)
    vocabulary = tr.data.Vocabulary([f"i{number}" for number in range(200)])
    encoder = tr.models.BehaviorEncoder(vocabulary.size, 8, 1, dropout=0.0)
    model = tr.models.NextBehaviorModel(encoder)
    model.build()
    scorer = tr.evaluation.ModelScorer(model, vocabulary)
    exported = ExportedModel(export_model(scorer, tmp_path / "big" / "1"))
    histories = [["i0", "i63", "i64", "i199"], ["i5"], []]
    for k in (1, 70, 200):
        found = exported.recommend(histories, k=k)
        expected = scorer.recommend(histories=histories, k=k)
        assert [item for one in found for item in one.items] == expected["item"].to_list()


def test_warm_up_requests_are_what_tensorflow_serving_reads(exported_shop):
    logging_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = exported_shop.path / "assets.extra" / "tf_serving_warmup_requests"
    signatures = set()
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = logging_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "shop"
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert exported_shop.call(request.model_spec.signature_name, inputs)
        signatures.add(request.model_spec.signature_name)
    assert signatures == set(exported_shop.signatures)


def test_an_export_holds_no_history_of_a_user(shop, exported_shop):
    names = {path.name for path in exported_shop.path.rglob("*") if path.is_file()}
    assert "histories" not in names
    raw = b"".join(path.read_bytes() for path in exported_shop.path.rglob("*") if path.is_file())
    assert b"tops-3" in raw
    assert not any(user.encode() in raw for user in shop.histories.user_ids.to_pylist()[10:])


def test_what_cannot_be_exported_or_loaded_says_why(shop, exported_shop, tmp_path):
    with pytest.raises(NotFittedError):
        tr.Recommender().export(tmp_path / "1")
    with pytest.raises(ValueError, match="precision must be one of"):
        shop.export(tmp_path / "1", precision="int3")
    with pytest.raises(ValueError, match="k must be"):
        shop.export(tmp_path / "1", k=0)
    with pytest.raises(SavedModelError, match=r"tfrec_llm\.json"):
        ExportedModel(tmp_path)
    broken = tmp_path / "2"
    shutil.copytree(exported_shop.path, broken)
    (broken / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(SavedModelError, match="cannot be read"):
        ExportedModel(broken)
    description = broken / "assets.extra" / "tfrec_llm.json"
    description.write_text(json.dumps({"format": "another"}))
    with pytest.raises(SavedModelError, match="another"):
        ExportedModel(broken)


def test_test_split_is_ranked_as_evaluate_ranks_it(shop, exported_shop):
    split = shop_split()
    report = shop.evaluate(split.test, k=5)
    sequences = shop.sequences(split.test.history).select(split.test.user.to_pylist())
    items, behaviors = _raw(shop, sequences)
    lists = exported_shop.recommend(items, k=5, behaviors=behaviors)
    hits = [
        target in one.items for target, one in zip(split.test.item.to_pylist(), lists, strict=True)
    ]
    assert np.mean(hits) == pytest.approx(report["hr@5"])


def _raw(rec, sequences):
    names = np.array(["", *sequences.behavior_vocabulary], object)[sequences.behaviors]
    cuts = sequences.offsets[1:-1]
    decoded = rec.vocabulary.decode(sequences.items)
    items = [["?" if item is None else item for item in part] for part in np.split(decoded, cuts)]
    return items, [part.tolist() for part in np.split(names, cuts)]
