import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data.vocabulary import MASK, NUM_RESERVED
from tfrec_llm.losses import CatalogCrossEntropy
from tfrec_llm.models import BehaviorEncoder, MaskedBehaviorModel, NextBehaviorModel

MODELS = [NextBehaviorModel, MaskedBehaviorModel]
VOCAB_SIZE = 12


def make(model_class, *, tie_embeddings=True, **options):
    encoder = BehaviorEncoder(VOCAB_SIZE, 8, 1, 2, max_length=6, dropout=0.0, **options)
    return model_class(encoder, tie_embeddings=tie_embeddings)


def padded(*histories, length=6, left=True):
    batch = {
        name: np.zeros((len(histories), length), "int32")
        for name in ("items", "segments", "positions")
    }
    for row, history in enumerate(histories):
        start = length - len(history) if left else 0
        places = slice(start, start + len(history))
        batch["items"][row, places] = history
        batch["segments"][row, places] = 1
        batch["positions"][row, places] = np.arange(len(history))[::-1]
    return batch


def training_batch():
    inputs = padded([3, 4, 5, 6], [7, 8, 3, 9])
    inputs["target_positions"] = np.array([[2, 3, 5], [2, 4, 5]], "int32")
    return inputs, np.array([[4, 5, 10], [8, 0, 11]], "int32")


def scores(model, batch):
    return ops.convert_to_numpy(model(batch))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_class", MODELS)
def test_every_model_is_a_sound_keras_model(model_class, tied):
    encoder = BehaviorEncoder(VOCAB_SIZE, 8, 1, 2, max_length=6, dropout=0.0)
    run_layer_test(
        model_class,
        {"encoder": encoder, "tie_embeddings": tied},
        padded([3, 4], [5, 6, 7]),
        output_shape=(2, VOCAB_SIZE),
        mixed_dtype="float32",
        training_batch=training_batch(),
    )


@pytest.mark.parametrize("model_class", MODELS)
def test_predict_gives_the_scores_of_the_whole_catalogue(model_class):
    model = make(model_class)
    batch = padded([3, 4], [5, 6, 7])
    predicted = model.predict(batch, verbose=0)
    assert predicted.shape == (2, VOCAB_SIZE)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, scores(model, batch), atol=1e-6)


@pytest.mark.parametrize("model_class", MODELS)
def test_the_side_of_the_padding_does_not_matter(model_class):
    model = make(model_class)
    histories = [3, 4], [5, 6, 7]
    np.testing.assert_allclose(
        scores(model, padded(*histories)),
        scores(model, padded(*histories, length=5, left=False)),
        atol=1e-5,
    )


def test_scores_are_hidden_states_times_the_table():
    model = make(NextBehaviorModel)
    batch = padded([3, 4, 5])
    hidden = ops.convert_to_numpy(model.encoder(batch))[0, -1]
    table = ops.convert_to_numpy(model.encoder.item_embedding.table)
    np.testing.assert_allclose(scores(model, batch)[0], table @ hidden, atol=1e-5)


def test_a_masked_model_asks_at_a_mask_behind_the_history():
    model = make(MaskedBehaviorModel)
    appended = padded([3, 4, MASK], length=3)
    hidden = ops.convert_to_numpy(model.encoder(appended))[0, -1]
    table = ops.convert_to_numpy(model.table)
    np.testing.assert_allclose(scores(model, padded([3, 4]))[0], table @ hidden, atol=1e-5)


@pytest.mark.parametrize("model_class", MODELS)
def test_the_loss_is_the_plain_cross_entropy_of_the_places_with_a_target(model_class):
    model = make(model_class)
    model.compile(loss=CatalogCrossEntropy())
    inputs, targets = training_batch()
    found = model.evaluate(inputs, targets, verbose=0)
    hidden = ops.convert_to_numpy(model.encoder(inputs))
    table = ops.convert_to_numpy(model.table)[NUM_RESERVED:]
    losses = []
    for row, column in np.argwhere(targets):
        logits = table @ hidden[row, inputs["target_positions"][row, column]]
        shares = np.exp(logits) / np.exp(logits).sum()
        losses.append(-np.log(shares[targets[row, column] - NUM_RESERVED]))
    assert found == pytest.approx(np.mean(losses), abs=1e-5)


def test_the_next_behaviour_needs_an_encoder_that_does_not_see_it():
    with pytest.raises(ValueError, match="causal=False"):
        make(NextBehaviorModel, causal=False)
    assert make(NextBehaviorModel).encoder.causal is True
    assert make(MaskedBehaviorModel).encoder.causal is False


def test_what_would_be_measured_wrongly_is_refused_at_compile():
    model = make(NextBehaviorModel)
    with pytest.raises(ValueError, match="must be a CatalogLoss"):
        model.compile(loss="mse")
    with pytest.raises(ValueError, match="RankingEvaluation"):
        model.compile(metrics=["accuracy"])


def test_fit_learns_what_follows_what():
    model = make(NextBehaviorModel)
    model.compile(keras.optimizers.Adam(0.02))
    inputs = padded([3, 4, 5, 6], [6, 3, 4, 5])
    inputs["target_positions"] = np.array([[2, 3, 4]] * 2, "int32")
    targets = np.array([[4, 5, 6], [3, 4, 5]], "int32")
    model.fit(inputs, targets, epochs=60, verbose=0)
    assert scores(model, padded([3, 4]))[0, NUM_RESERVED:].argmax() == 5 - NUM_RESERVED
