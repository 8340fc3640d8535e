import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.metrics import StreamingTopK, target_ranks

REFERENCE = Path(__file__).parents[1] / "reference" / "tfa_tfrs.json"
RETRIEVAL = json.loads(REFERENCE.read_text())["retrieval"]


def found(metric):
    return {name: float(value) for name, value in metric.result().items()}


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    catalogue = rng.normal(size=(230, 6)).astype("float32")
    queries = rng.normal(size=(90, 6)).astype("float32")
    rows = rng.integers(0, 230, 90)
    queries[::2] += catalogue[rows[::2]]
    return catalogue, queries, rows, rng.random(90).astype("float32")


@pytest.mark.parametrize("chunk_size", [1, 7, 40, 1000])
def test_the_shares_are_what_tensorflow_recommenders_gave(chunk_size):
    expected = RETRIEVAL["factorized_top_k"]
    catalogue = np.array(RETRIEVAL["catalogue"], "float32")
    metric = StreamingTopK(catalogue, k=[int(k) for k in expected], chunk_size=chunk_size)
    metric.update_state(RETRIEVAL["true_rows"], np.array(RETRIEVAL["queries"], "float32"))
    assert found(metric) == pytest.approx({f"hr@{k}": expected[k] for k in expected}, abs=1e-5)


@pytest.mark.parametrize("chunk_size", [9, 230])
def test_the_shares_are_what_a_plain_ranking_gives(chunk_size, case):
    catalogue, queries, rows, weights = case
    metric = StreamingTopK(catalogue, k=(10, 1, 3), chunk_size=chunk_size)
    metric.update_state(rows[:, None], queries, weights)
    ranks = target_ranks(queries.astype("float64") @ catalogue.T.astype("float64"), rows)
    expected = {f"hr@{k}": (weights * (ranks <= k)).sum() / weights.sum() for k in (1, 3, 10)}
    assert 0 < expected["hr@1"] < expected["hr@10"] < 1
    assert list(found(metric)) == list(expected)
    assert found(metric) == pytest.approx(expected, rel=1e-5)


def test_its_state_adds_up_over_batches_and_is_soundly_reset(case):
    catalogue, queries, rows, weights = case
    whole, parts = StreamingTopK(catalogue), StreamingTopK(catalogue)
    whole.update_state(rows, queries, weights)
    separate = [StreamingTopK(catalogue) for _ in range(2)]
    for part, metric in zip((slice(0, 50), slice(50, 90)), separate, strict=True):
        for each in (parts, metric):
            each.update_state(rows[part], queries[part], weights[part])
    assert found(parts) == pytest.approx(found(whole), rel=1e-6)
    for places in zip(whole.variables, *(metric.variables for metric in separate), strict=True):
        total, *summands = (ops.convert_to_numpy(place) for place in places)
        np.testing.assert_allclose(sum(summands), total, rtol=1e-5)
    whole.reset_state()
    assert set(found(whole).values()) == {0.0}


@pytest.mark.parametrize("width", [3, 8, 33, 100])
@pytest.mark.parametrize("num_items", [17, 1023, 4097])
def test_equal_vectors_tie_however_their_products_are_rounded(width, num_items):
    rng = np.random.default_rng(0)
    catalogue = np.tile(rng.normal(size=(1, width)), (num_items, 1)).astype("float32")
    metric = StreamingTopK(catalogue, k=(1, 10, num_items - 1, num_items), chunk_size=1000)
    queries = rng.normal(size=(64, width)).astype("float32")
    metric.update_state(rng.integers(0, num_items, 64), queries)
    assert list(found(metric).values()) == [0, 0, 0, 1]


def test_values_that_are_no_numbers_and_rows_that_are_unknown_find_nothing():
    catalogue = np.eye(3, dtype="float32")
    metric = StreamingTopK(catalogue, k=(1,))
    metric.update_state([0, -1, 2], np.array([[np.nan, 0, 0], [0, 0, 1], [0, 0, 1]], "float32"))
    assert found(metric) == pytest.approx({"hr@1": 1 / 3})


def test_more_queries_than_fit_at_a_time_are_soundly_split():
    rng = np.random.default_rng(0)
    catalogue = rng.normal(size=(50, 4)).astype("float32")
    rows = rng.integers(0, 50, 3000)
    queries = catalogue[rows] + rng.normal(size=(3000, 4)).astype("float32")
    metric = StreamingTopK(catalogue, k=(1, 5))
    metric.update_state(rows, queries)
    ranks = target_ranks(queries @ catalogue.T, rows)
    assert found(metric) == pytest.approx({f"hr@{k}": (ranks <= k).mean() for k in (1, 5)})


def two_towers(**options):
    keras.utils.set_random_seed(0)
    user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    items = keras.layers.Embedding(30, 8)
    vectors = ops.stack([keras.layers.Embedding(30, 8)(user), items(item)], axis=1)
    model = keras.Model([user, item], vectors)
    metric = StreamingTopK(items.embeddings, k=(1, 5), **options)
    return model, metric, items


IDS = np.random.default_rng(0).integers(0, 30, 300)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compiled on TensorFlow only")
def test_in_compile_it_ranks_by_the_present_weights(tmp_path):
    from tfrec_llm.losses import RetrievalLoss

    model, metric, items = two_towers(chunk_size=8)
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=RetrievalLoss(), metrics=[metric])
    arguments = {"batch_size": 32, "verbose": 0}
    before = model.evaluate([IDS, IDS], IDS, return_dict=True, **arguments)
    model.fit([IDS, IDS], IDS, epochs=8, **arguments)
    after = model.evaluate([IDS, IDS], IDS, return_dict=True, **arguments)
    assert before["hr@1"] < 0.3 < 0.95 < after["hr@1"] <= after["hr@5"]
    queries = model.predict([IDS, IDS], **arguments)[:, 0]
    ranks = target_ranks(queries @ items.get_weights()[0].T, IDS)
    assert after["hr@1"] == pytest.approx((ranks <= 1).mean(), abs=1e-6)
    model.save(tmp_path / "towers.keras")
    again = keras.models.load_model(tmp_path / "towers.keras")
    with pytest.raises(ValueError, match=r"no catalogue.*StreamingTopK\(catalogue\)"):
        again.evaluate([IDS, IDS], IDS, **arguments)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="what JAX cannot do")
def test_in_compile_on_jax_it_says_that_it_cannot_see_weights():
    model, metric, _ = two_towers()
    model.compile(loss="mse", metrics=[metric])
    with pytest.raises(ValueError, match="loop of your own"):
        model.evaluate([IDS, IDS], IDS, verbose=0)


def test_the_configuration_makes_the_round_trip_without_the_catalogue():
    metric = StreamingTopK(np.eye(3, dtype="float32"), k=(7, 2), chunk_size=5, name="mine")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert again.k == (2, 7)


@pytest.mark.parametrize("options", [{"k": (0, 5)}, {"k": ()}, {"chunk_size": 0}])
def test_lengths_below_one_are_refused(options):
    with pytest.raises(ValueError, match="must be 1 or more"):
        StreamingTopK(np.eye(3), **options)


def test_the_other_metrics_need_no_framework():
    code = "import sys, tfrec_llm.metrics; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
