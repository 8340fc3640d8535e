import keras
import numpy as np
import pytest

from tfrec_llm.data import RankingBatches, UserSequences, next_batches
from tfrec_llm.models import BehaviorEncoder, ClickModel, NextBehaviorModel

SEQUENCES = UserSequences(
    np.arange(3, 15, dtype=np.int32), np.array([0, 4, 8, 12]), times=np.arange(12)
)


def next_behavior():
    return NextBehaviorModel, next_batches(SEQUENCES, max_length=4), {}


def click():
    impressions = {"users": [0, 1], "times": [3, 9], "candidates": [5, 7], "labels": [0, 1]}
    batches = RankingBatches(SEQUENCES, **impressions, max_length=4)
    return ClickModel, batches, {"weighted_metrics": ["auc"]}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow traces twice")
@pytest.mark.parametrize("made", [next_behavior, click])
def test_a_step_is_traced_once(made, monkeypatch):
    model_class, batches, options = made()
    traced = []
    step = model_class.train_step

    def counted(*args):
        traced.append(1)
        return step(*args)

    monkeypatch.setattr(model_class, "train_step", counted)
    model = model_class(BehaviorEncoder(vocab_size=20, emb_dim=8, num_layers=1, max_length=4))
    model.build()
    model.compile("adam", **options)
    model.fit(batches, epochs=2, verbose=0)
    assert len(traced) == 1
    assert model.optimizer.iterations == 2 * len(batches)
