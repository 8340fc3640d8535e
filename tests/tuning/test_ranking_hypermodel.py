import numpy as np
import pytest

import tfrec_llm as tr
from tfrec_llm.data import RankingBatches, UserSequences
from tfrec_llm.models import BehaviorEncoder

keras_tuner = pytest.importorskip("keras_tuner", reason="pip install 'tfrec-llm[tuning]'")


def space(hp):
    return {
        "hid_dim": hp.Choice("hid_dim", [8, 16], default=8),
        "learning_rate": 0.01,
        "decay": hp.Choice("decay", [0.5, 1.0], default=0.5),
    }


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 20)
    offsets = np.append(0, np.cumsum(lengths))
    times = np.concatenate([np.sort(rng.integers(0, 90, length)) for length in lengths])
    sequences = UserSequences(
        rng.integers(3, 20, offsets[-1]).astype("int32"), offsets, times=times
    )
    candidates = rng.integers(3, 20, 200)

    def of(chosen):
        return RankingBatches(
            sequences,
            users=rng.integers(0, 20, 200)[chosen],
            times=np.full(200, 100)[chosen],
            candidates=candidates[chosen],
            labels=(candidates > 10).astype("float32")[chosen],
            max_length=8,
        )

    return of(slice(0, 150)), of(slice(150, 200))


def test_any_keras_tuner_searches_ranking_models_and_no_trial_sees_another(batches, tmp_path):
    train, valid = batches
    encoder = BehaviorEncoder(20, emb_dim=8, num_layers=1, max_length=8, dropout=0.0)
    hypermodel = tr.tuning.RankingHyperModel(encoder, space=space)
    before = encoder.get_weights()
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        objective=keras_tuner.Objective("val_auc", direction="max"),
        max_trials=2,
        seed=1,
        directory=tmp_path,
        project_name="clicks",
    )
    tuner.search(train, validation_data=valid, epochs=2, verbose=0)
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    table = tr.tuning.Trials(tuner.project_dir).table
    assert list(table["status"]) == ["done", "done"]
    assert table["score"].is_monotonic_decreasing
    (model,) = tuner.get_best_models()
    found = model.evaluate(valid, return_dict=True, verbose=0)
    assert found["auc"] == pytest.approx(table["score"][0], abs=1e-6)


def test_layers_and_losses_of_a_trial_are_its_own(batches):
    encoder = BehaviorEncoder(20, emb_dim=8, num_layers=1, max_length=8)
    hypermodel = tr.tuning.RankingHyperModel(
        encoder,
        layers=lambda: {"candidate_embedding": tr.layers.ItemEmbedding(20, 8)},
    )
    first, second = (hypermodel.build(keras_tuner.HyperParameters()) for _ in range(2))
    assert first.candidate_embedding is not second.candidate_embedding
    assert first.encoder is not second.encoder
    assert first.encoder is not encoder
