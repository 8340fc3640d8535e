"""TensorFlow Recommenders' indices find what the exact search finds, in a process of their own."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_recommenders") is None,
    reason="TensorFlow Recommenders is not installed: pip install 'tfrec-llm[tfrs]'",
)

# It needs tf.keras to be Keras 2, which has to be said before TensorFlow is imported.
CODE = """
import json, sys
import numpy as np, tensorflow as tf, tfrec_llm as tr

rec = tr.Recommender.load(sys.argv[1])
ids = rec.vocabulary.ids.to_pylist()
histories = json.loads(sys.argv[3])
width = max(map(len, histories))
history = tf.constant([[*[""] * (width - len(one)), *one] for one in histories])
behaviors = tf.where(history == "", "", "view")
found = {}
for kind, seen, k in (("brute_force", False, 100), ("streaming", True, 5)):
    path = f"{sys.argv[2]}/{kind}-{seen}-{k}"
    tr.serving.export_with_recommenders(rec, path, index=kind, k=k, filter_seen=seen)
    served = tf.saved_model.load(f"{path}/1")
    answer = served.signatures["serving_default"](history=history, behaviors=behaviors)
    found[f"{kind} {seen} {k}"] = {
        "items": [[one.decode() for one in row] for row in answer["items"].numpy()],
        "scores": answer["scores"].numpy().tolist(),
        "source": [one.decode() for one in answer["source"].numpy()],
    }
index = tr.serving.recommenders_index(rec, k=3)
vectors = tf.constant(rec.vectors_of(np.arange(2)))
print(json.dumps({"found": found, "index": [v.numpy().tolist() for v in index(vectors)][0]}))
"""


def test_they_find_what_the_exact_search_finds_and_are_saved_with_the_encoder(
    shop, exported_shop, tmp_path
):
    shop.save(tmp_path / "shop.tfrec")
    ids = shop.vocabulary.ids.to_pylist()
    histories = [ids[:3], ids[4:12], [], ["never seen", ids[20]]]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "shop.tfrec"), str(tmp_path),
         json.dumps(histories)],
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    behaviors = [["view"] * len(history) for history in histories]
    for setting, found in answer["found"].items():
        _, seen, k = setting.split()
        expected = exported_shop.recommend(
            histories, k=int(k), behaviors=behaviors, filter_seen=seen == "True"
        )
        for row, one in enumerate(expected):
            assert [item for item in found["items"][row] if item] == one.items, setting
            np.testing.assert_allclose(
                found["scores"][row][: len(one.scores)], one.scores, atol=1e-5
            )
            assert found["source"][row] == one.source
    vectors = shop.vectors_of(np.arange(len(ids)))
    best = np.sort(vectors[:2] @ vectors.T, axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(answer["index"], best, atol=1e-5)


def test_without_keras_2_the_reason_is_told(shop):
    from tfrec_llm.serving import recommenders_index

    with pytest.raises(ImportError, match="TF_USE_LEGACY_KERAS=1"):
        recommenders_index(shop)
    with pytest.raises(ValueError, match="kind must be one of"):
        recommenders_index(shop, kind="scann")
