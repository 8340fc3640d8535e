"""Telling histories apart."""

import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import UserSequences, contrastive_batches
from tfrec_llm.data.batches import padded_batch
from tfrec_llm.losses import ContrastiveLoss
from tfrec_llm.models import BehaviorEncoder, ContrastiveModel

SMALL = {"vocab_size": 40, "emb_dim": 8, "num_layers": 1, "max_length": 8, "dropout": 0.0}


def histories(count, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 9, count)
    offsets = np.append(0, np.cumsum(lengths))
    return UserSequences(rng.integers(3, 40, offsets[-1]).astype("int32"), offsets)


@pytest.fixture(scope="module")
def sequences():
    return histories(60, seed=0)


@pytest.mark.parametrize("causal", [True, False])
def test_contrastive_model_is_a_sound_keras_model(causal, sequences):
    run_layer_test(
        ContrastiveModel,
        {"encoder": BehaviorEncoder(**SMALL, causal=causal)},
        padded_batch(sequences, max_length=8),
        output_shape=(60, 8),
        mixed_dtype="float32",
        training_batch=contrastive_batches(sequences, max_length=8, batch_size=100)[0],
    )


def test_the_loss_in_fit_is_that_of_the_newest_states(sequences):
    model = ContrastiveModel(BehaviorEncoder(**SMALL, causal=True))
    model.compile(keras.optimizers.SGD(0.0), loss=ContrastiveLoss(temperature=0.5))
    inputs, targets = contrastive_batches(sequences, max_length=8, batch_size=100)[0]
    hidden = ops.convert_to_numpy(model.encoder(inputs))
    rows = np.arange(len(targets))[:, None]
    states = hidden[rows, inputs["target_positions"]]
    expected = float(ContrastiveLoss(temperature=0.5)(targets, states))
    history = model.fit(inputs, targets, batch_size=100, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(inputs, targets, batch_size=100, verbose=0) == pytest.approx(expected)


def test_views_of_histories_that_were_never_seen_find_each_other():
    keras.utils.set_random_seed(0)
    model = ContrastiveModel(BehaviorEncoder(**SMALL | {"emb_dim": 16}))
    model.compile(keras.optimizers.Adam(0.01))
    unseen = contrastive_batches(histories(60, seed=1), max_length=8)
    before = model.evaluate(unseen, verbose=0)
    seen = contrastive_batches(histories(300, seed=0), max_length=8, batch_size=16)
    model.fit(seen, epochs=12, verbose=0)
    assert model.evaluate(unseen, verbose=0) < 0.75 * before


def test_predict_gives_a_vector_a_history(sequences):
    model = ContrastiveModel(BehaviorEncoder(**SMALL, causal=True))
    batch = padded_batch(sequences, max_length=8)
    vectors = model.predict(batch, verbose=0)
    newest = ops.convert_to_numpy(model.encoder(batch))[:, -1]
    np.testing.assert_allclose(vectors, newest, atol=1e-5)
