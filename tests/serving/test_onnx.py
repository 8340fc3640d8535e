import json

import numpy as np
import pytest

from tfrec_llm.data import padded_batches

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


@pytest.fixture(scope="module", params=["shop", "numbers"])
def pair(request, tmp_path_factory):
    """A recommender, and a session that runs what was exported of it."""
    rec = request.getfixturevalue(request.param)
    path = rec.export(tmp_path_factory.mktemp("onnx") / "shop.onnx", format="onnx")
    return rec, onnxruntime.InferenceSession(path)


def test_scores_under_onnxruntime_are_those_of_evaluate(pair):
    rec, session = pair
    batch = padded_batches(rec.histories, max_length=50, batch_size=1000)[0]
    inputs = {"history": batch["items"]}
    if rec.model.encoder.num_behaviors:
        inputs["behaviors"] = batch["behaviors"]
    (scores,) = session.run(["scores"], inputs)
    np.testing.assert_allclose(scores, rec.score(rec.histories)[:, 3:], atol=2e-5)
    empty = {name: values[:2] * 0 for name, values in inputs.items()}
    (scores,) = session.run(["scores"], empty)
    assert scores.tolist() == [rec.vocabulary.counts[3:].tolist()] * 2


def test_the_file_tells_ids_and_kinds(pair):
    rec, session = pair
    about = json.loads(session.get_modelmeta().custom_metadata_map["tfrec_llm"])
    assert about["ids"] == rec.vocabulary.ids.to_pylist()
    kinds = list(rec.histories.behavior_vocabulary) if rec.model.encoder.num_behaviors else None
    assert about["behaviors"] == kinds


def test_what_does_not_go_with_it_is_told(shop, tmp_path):
    with pytest.raises(ValueError, match="do not go with ONNX"):
        shop.export(tmp_path / "shop.onnx", format="onnx", exclude=["a"])
    with pytest.raises(ValueError, match="format must be one of"):
        shop.export(tmp_path / "shop.onnx", format="pickle")
