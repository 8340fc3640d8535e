"""What a recommender of a large catalogue relies on, at small sizes."""

import numpy as np
import pytest

import tfrec_llm as tr
from tfrec_llm.optimizers import LazyAdam

SMALL = {"emb_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 20}


@pytest.fixture(scope="module")
def split():
    return tr.data.leave_last_out(tr.data.ShopSimulator(120, 40, seed=3).simulate())


def test_a_recommender_trains_by_rows_and_is_loaded_with_equal_scores(split, tmp_path):
    rec = tr.Recommender(**SMALL, loss="sampled", optimizer="lazy_adam", learning_rate=5e-3)
    rec.fit(split.train, validation=split.valid, epochs=10, verbose=0)
    assert isinstance(rec.make_optimizer(num_steps=1), LazyAdam)
    assert rec.curve[-1]["loss"] < rec.curve[0]["loss"]
    assert rec.evaluate(split.test, k=5, filter_seen=False)["hr@5"] > 5 / 40
    rec.save(tmp_path / "shop")
    again = tr.Recommender.load(tmp_path / "shop")
    sequences = rec.sequences(split.test.history)
    np.testing.assert_array_equal(again.score(sequences), rec.score(sequences))
    assert again.optimizer == "lazy_adam"


def test_another_optimizer_is_told_which_there_are():
    with pytest.raises(ValueError, match=r"adam.*lazy_adam.*got 'sgd'"):
        tr.Recommender(**SMALL, optimizer="sgd")
