"""The retrieval loss and the top-k metric give what TensorFlow Recommenders gives, run beside."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from tfrec_llm.losses import RetrievalLoss
from tfrec_llm.metrics import StreamingTopK

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_recommenders") is None,
    reason="TensorFlow Recommenders is not installed: pip install 'tfrec-llm[test]'",
)

TASKS = {
    "plain": {},
    "cool": {"temperature": 0.3},
    "hot, without accidental hits": {"temperature": 3.0, "remove_accidental_hits": True},
    "corrected": {"corrected": True},
    "corrected, without accidental hits": {"corrected": True, "remove_accidental_hits": True},
    "hard negatives": {"num_hard_negatives": 3},
    "more hard negatives than there are": {"num_hard_negatives": 500},
    "weighted": {"weighted": True},
    "all": {
        "temperature": 0.5,
        "corrected": True,
        "remove_accidental_hits": True,
        "num_hard_negatives": 5,
        "weighted": True,
    },
}
KS = (1, 4, 20)

# It needs tf.keras to be Keras 2, which has to be said before TensorFlow is imported.
CODE = """
import json, sys
import numpy as np, tensorflow as tf, tensorflow_recommenders as tfrs

tasks, ks, found = json.loads(sys.argv[2]), json.loads(sys.argv[3]), []
with np.load(sys.argv[1]) as arrays:
    arrays = dict(arrays)
for case in sorted({name.partition("/")[0] for name in arrays}):
    queries, candidates, extra, ids, shares, weights, catalogue, rows = (
        tf.constant(arrays[f"{case}/{name}"])
        for name in ("queries", "candidates", "extra", "ids", "shares", "weights", "catalogue",
                     "rows")
    )
    losses, probabilities = {}, tf.gather(shares, ids)
    for name, options in tasks.items():
        corrected, weighted = options.pop("corrected", False), options.pop("weighted", False)
        task = tfrs.tasks.Retrieval(**options)
        options |= {"corrected": corrected, "weighted": weighted}
        for kind, vectors in (("", candidates), (" and more candidates", extra)):
            count = len(vectors)
            losses[name + kind] = float(task(
                queries, vectors,
                candidate_ids=ids[:count],
                candidate_sampling_probability=probabilities[:count] if corrected else None,
                sample_weight=weights if weighted else None,
            ))
    vectors = tf.data.Dataset.from_tensor_slices(catalogue)
    numbered = tf.data.Dataset.zip((tf.data.Dataset.range(len(catalogue)), vectors)).batch(32)
    metrics = [tfrs.metrics.FactorizedTopK(vectors.batch(32), ks=ks)]
    index = tfrs.layers.factorized_top_k.Streaming(k=max(ks)).index_from_dataset(numbered)
    metrics.append(tfrs.metrics.FactorizedTopK(index, ks=ks))
    true = tf.gather(catalogue, rows)
    metrics[0].update_state(queries, true, sample_weight=weights)
    metrics[1].update_state(queries, true, true_candidate_ids=rows, sample_weight=weights)
    shares = [[float(value) for value in metric.result()] for metric in metrics]
    found.append({"losses": losses, "by score": shares[0], "by id": shares[1]})
print(json.dumps({"version": tfrs.__version__, "cases": found}))
"""


@pytest.fixture(scope="module")
def cases():
    """Random inputs of several shapes."""
    made = []
    for seed, (num_queries, width) in enumerate([(3, 2), (16, 8), (61, 24)]):
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, 150, num_queries)
        # Such numbers have exact products in float32. Of others the score-based metric there
        # sometimes finds the true row to be better than itself by a rounding.
        catalogue = (np.round(256 * rng.normal(size=(150, width))) / 256).astype("float32")
        queries = (
            np.round(256 * (rng.normal(size=(num_queries, width)) + catalogue[rows] / 2)) / 256
        )
        candidates = rng.normal(size=(num_queries, width))
        shares = rng.uniform(1e-4, 1, 12)
        made.append(
            {
                "queries": queries.astype("float32"),
                "candidates": candidates.astype("float32"),
                "extra": np.concatenate([candidates, rng.normal(size=(9, width))]).astype(
                    "float32"
                ),
                "ids": rng.integers(0, 12, num_queries + 9),
                "shares": (shares / shares.sum()).astype("float32"),
                "weights": rng.random(num_queries).astype("float32"),
                "catalogue": catalogue,
                "rows": rows,
            }
        )
    return made


@pytest.fixture(scope="module")
def theirs(cases, tmp_path_factory):
    """What TensorFlow Recommenders makes of the cases."""
    path = tmp_path_factory.mktemp("recommenders") / "cases.npz"
    arrays = {f"{i}/{name}": array for i, case in enumerate(cases) for name, array in case.items()}
    np.savez(path, **arrays)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), json.dumps(TASKS), json.dumps(KS)],
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found["cases"]


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_is_that_of_the_retrieval_task(name, cases, theirs):
    options = dict(TASKS[name])
    corrected, weighted = options.pop("corrected", False), options.pop("weighted", False)
    options.setdefault("remove_accidental_hits", False)
    for case, expected in zip(cases, theirs, strict=True):
        loss = RetrievalLoss(
            reduction="sum", frequencies=case["shares"] if corrected else None, **options
        )
        weights = case["weights"] if weighted else None
        queries, candidates = case["queries"], case["candidates"]
        pairs = {"": candidates, " and more candidates": case["extra"]}
        for kind, vectors in pairs.items():
            found = float(loss(case["ids"][: len(vectors)], (queries, vectors), weights))
            assert found == pytest.approx(expected["losses"][name + kind], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("by", ["by score", "by id"])
def test_the_shares_are_those_of_the_factorized_metric(by, cases, theirs):
    for case, expected in zip(cases, theirs, strict=True):
        metric = StreamingTopK(case["catalogue"], k=KS, chunk_size=32)
        metric.update_state(case["rows"], case["queries"], case["weights"])
        found = [float(ops.convert_to_numpy(value)) for value in metric.result().values()]
        assert 0 < expected[by][-1] <= 1
        assert found == pytest.approx(expected[by], abs=1e-5)
