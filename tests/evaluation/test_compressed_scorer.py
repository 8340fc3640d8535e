import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops

import tfrec_llm as tr
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.errors import NotFittedError, SavedModelError
from tfrec_llm.evaluation import CompressedScorer, ModelScorer, compressed_scorer, item_scores

KINDS = [{"kind": "float16"}, {"kind": "int8"}, {"kind": "product", "num_codes": 4}]
OPTIONS = [{}, {"similarity": "cosine", "temperature": 0.1}, {"tie_embeddings": False}]


@pytest.fixture(scope="module")
def split():
    return tr.data.leave_last_out(tr.data.ShopSimulator(200, 400, seed=3).simulate())


@pytest.fixture(scope="module")
def fitted(split):
    rec = tr.Recommender(emb_dim=16, num_layers=1, max_length=20, precision="float32")
    return rec.fit(split.train, epochs=4, verbose=0)


def made(model_class, vocabulary, histories, **options):
    """A scorer whose weights are wide, so that what is wrong would show."""
    encoder = tr.models.BehaviorEncoder(
        vocabulary.size, 8, 1, 2, max_length=16, num_behaviors=2, dropout=0.0
    )
    model = model_class(encoder, **options)
    model.build()
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return ModelScorer(model, vocabulary, histories=histories)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["next", "masked"])
def test_scores_are_those_of_the_model_with_the_decoded_tables_in_place(
    objective, kind, options, fitted
):
    model_class = {
        "next": tr.models.NextBehaviorModel,
        "masked": tr.models.MaskedBehaviorModel,
    }[objective]
    scorer = made(model_class, fitted.vocabulary, fitted.histories, **options)
    before = [weight.copy() for weight in scorer.model.get_weights()]
    small = CompressedScorer.of(scorer, **kind)
    for weight, old in zip(scorer.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    found = small.score(small.histories.take(np.arange(50)))
    # The whole model with rounded tables.
    scorer.model.table.assign(small.model.table)
    if "tie_embeddings" in options:
        embedding = scorer.model.encoder.item_embedding
        embedding.table.assign(small.model.encoder.item_embedding.table)
    expected = scorer.score(scorer.histories.take(np.arange(50)))
    np.testing.assert_allclose(found[:, 3:], expected[:, 3:], rtol=1e-4, atol=1e-4)
    assert (found[:, :NUM_RESERVED] == -np.inf).all()


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_and_recommendations_are_those_of_whole_rows(kind, fitted, split, monkeypatch):
    monkeypatch.setattr(item_scores, "_WIDEST", 64)
    small = CompressedScorer.of(fitted, **kind)
    task = tr.evaluation.RankingTask.from_log(split.test, small.vocabulary)
    blocks, rows = task.rank(small, list_length=5), task.rank(small.score, list_length=5)
    np.testing.assert_array_equal(blocks.ranks, rows.ranks)
    np.testing.assert_array_equal(blocks.lists, rows.lists)
    shown = small.recommend(k=400, filter_seen=False)
    scores = small.score(small.histories)
    users = np.repeat(np.arange(len(scores)), len(small.vocabulary))
    columns = small.vocabulary.encode(shown["item"])
    np.testing.assert_allclose(shown["score"], scores[users, columns], atol=1e-5)


def test_a_few_users_are_scored_by_their_codes_as_many_are_by_decoded_vectors(fitted, monkeypatch):
    small = CompressedScorer.of(fitted, kind="product", num_codes=4)
    histories = small.histories.take(np.arange(5))
    by_codes = small.item_scores(histories)
    assert type(by_codes).__name__ == "CodeScores"
    monkeypatch.setattr(compressed_scorer, "_FEW_USERS", 0)
    decoded = small.item_scores(histories)
    assert type(decoded).__name__ == "ProductScores"
    np.testing.assert_allclose(by_codes.whole_rows(), decoded.whole_rows(), atol=1e-5)
    rows, items = np.arange(5), np.array([0, 3, 7, 200, 300])
    np.testing.assert_array_equal(by_codes.at(rows, items), by_codes.whole_rows()[rows, items])


@pytest.mark.parametrize("kind", KINDS)
def test_predict_gives_the_same_scores(kind, fitted):
    small = CompressedScorer.of(fitted, **kind)
    batch = tr.data.padded_batches(small.histories, max_length=20, batch_size=500)[0]
    predicted = small.model.predict(batch, verbose=0)
    np.testing.assert_allclose(predicted[:, 3:], small.score(small.histories)[:, 3:], atol=1e-5)


def test_little_rounding_changes_little_of_what_is_recommended(fitted, split):
    whole = fitted.evaluate(split.test, k=10, confidence=None)["ndcg@10"]
    for kind in ("float16", "int8"):
        small = CompressedScorer.of(fitted, kind=kind)
        found = small.evaluate(split.test, k=10, confidence=None)["ndcg@10"]
        assert found == pytest.approx(whole, abs=0.02)


def test_another_process_loads_them_with_equal_scores(fitted, tmp_path):
    small = [CompressedScorer.of(fitted, **kind) for kind in KINDS]
    for number, each in enumerate(small):
        each.save(tmp_path / str(number))
    script = f"""
        import pathlib
        import numpy as np, tfrec_llm as tr
        folder = pathlib.Path({str(tmp_path)!r})
        for number, size in enumerate({[each.bytes_per_item for each in small]}):
            small = tr.evaluation.CompressedScorer.load(folder / str(number))
            np.save(folder / f"{{number}}.npy", small.score(small.histories))
            assert small.bytes_per_item == size
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=os.environ)
    for number, each in enumerate(small):
        scores = np.load(tmp_path / f"{number}.npy")
        np.testing.assert_array_equal(scores, each.score(each.histories))


def test_what_is_saved_is_small(fitted, tmp_path):
    sizes = {}
    for kind in KINDS[:2]:  # 256 centroids take more than 400 items do
        CompressedScorer.of(fitted, **kind).save(tmp_path / kind["kind"])
        sizes[kind["kind"]] = (tmp_path / kind["kind"] / "model.keras").stat().st_size
    fitted.save(tmp_path / "whole")
    whole = (tmp_path / "whole" / "model.keras").stat().st_size
    assert sizes["int8"] < sizes["float16"] < whole


def test_a_damaged_or_another_folder_is_refused_and_what_was_there_stays(fitted, tmp_path):
    small = CompressedScorer.of(fitted)
    path = tmp_path / "small"
    small.save(path)
    small.save(path)
    (path / "model.keras").write_bytes(b"half")
    with pytest.raises(SavedModelError, match=r"model.keras has 4 bytes"):
        CompressedScorer.load(path)
    fitted.save(tmp_path / "whole")
    with pytest.raises(SavedModelError, match="has the format"):
        CompressedScorer.load(tmp_path / "whole")
    with pytest.raises(SavedModelError, match="There is no saved"):
        CompressedScorer.load(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(SavedModelError, match="other files"):
        small.save(tmp_path / "other")
    assert (tmp_path / "other" / "note.txt").read_text() == "mine"


def test_only_what_is_fitted_can_be_compressed():
    with pytest.raises(NotFittedError, match="not fitted"):
        CompressedScorer.of(tr.Recommender())


def test_bytes_count_all_tables(fitted):
    assert CompressedScorer.of(fitted, kind="float16").bytes_per_item == 32
    scorer = made(
        tr.models.NextBehaviorModel, fitted.vocabulary, fitted.histories, tie_embeddings=False
    )
    assert CompressedScorer.of(scorer, kind="float16").bytes_per_item == 32
    weights = CompressedScorer.of(fitted, kind="product").model.weights
    assert max(ops.size(weight) for weight in weights) < fitted.vocabulary.size * 16
    assert keras.backend.standardize_dtype(weights[0].dtype) == "float32"
