import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import UserSequences, masked_batches, next_batches
from tfrec_llm.data.batches import padded_batch
from tfrec_llm.data.vocabulary import MASK
from tfrec_llm.losses import CatalogCrossEntropy, SampledCrossEntropy
from tfrec_llm.models import BehaviorEncoder, MaskedBehaviorModel, NextBehaviorModel

SMALL = {"vocab_size": 20, "emb_dim": 8, "num_layers": 1, "max_length": 8, "dropout": 0.0}
MODELS = [NextBehaviorModel, MaskedBehaviorModel]
BATCHES = {NextBehaviorModel: next_batches, MaskedBehaviorModel: masked_batches}


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return UserSequences(rng.integers(3, 20, offsets[-1]).astype("int32"), offsets)


def built(model_class, tie_embeddings=True, **options):
    """A model of wide weights, so that what should not be seen would show."""
    model = model_class(BehaviorEncoder(**SMALL | options), tie_embeddings=tie_embeddings)
    model.build()
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def scores(model, batch):
    return ops.convert_to_numpy(model(batch))


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("model_class", MODELS)
def test_pre_training_models_are_sound_keras_models(model_class, tie_embeddings, sequences):
    run_layer_test(
        model_class,
        {"encoder": BehaviorEncoder(**SMALL), "tie_embeddings": tie_embeddings},
        padded_batch(sequences, max_length=8),
        output_shape=(40, 20),
        mixed_dtype="float32",
        training_batch=BATCHES[model_class](sequences, max_length=8, batch_size=100)[0],
    )


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("model_class", MODELS)
def test_scores_are_products_of_the_newest_state_with_the_item_table(
    model_class, tie_embeddings, sequences
):
    model = built(model_class, tie_embeddings)
    batch = padded_batch(sequences, max_length=8)
    found = scores(model, batch)
    assert found.shape == (40, 20)
    if model_class is MaskedBehaviorModel:
        # The history with the mask behind it, which stands where the next behaviour will.
        column = np.ones((40, 1), "int32")
        batch = {
            "items": np.concatenate([batch["items"], MASK * column], axis=1),
            "segments": np.concatenate([batch["segments"], column], axis=1),
            "positions": np.concatenate([batch["positions"] + 1, 0 * column], axis=1),
        }
    newest = ops.convert_to_numpy(model.encoder(batch))[:, -1]
    table = ops.convert_to_numpy(model.encoder.item_embedding.table)
    if not tie_embeddings:
        assert np.abs(table - ops.convert_to_numpy(model.table)).max() > 0.1
        table = ops.convert_to_numpy(model.table)
    np.testing.assert_allclose(found, newest @ table.T, atol=1e-5)


@pytest.mark.parametrize("position_encoding", ["learned", "rotary", "none"])
@pytest.mark.parametrize("model_class", MODELS)
def test_scores_do_not_depend_on_the_side_or_amount_of_padding(
    model_class, position_encoding, sequences
):
    model = built(model_class, position_encoding=position_encoding)
    left = padded_batch(sequences, max_length=8)
    right = {name: np.zeros_like(values) for name, values in left.items()}
    for row, size in enumerate(sequences.lengths):
        for name, values in left.items():
            right[name][row, :size] = values[row, 8 - size :]
    wide = {name: np.pad(values, ((0, 0), (5, 3))) for name, values in left.items()}
    expected = scores(model, left)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(scores(model, right), expected, atol=1e-5)
    np.testing.assert_allclose(scores(model, wide), expected, atol=1e-5)


@pytest.mark.parametrize("model_class", MODELS)
def test_predict_gives_the_scores_of_the_whole_catalogue(model_class, sequences):
    model = built(model_class)
    batch = padded_batch(sequences, max_length=8)
    predicted = model.predict(batch, batch_size=16, verbose=0)
    assert predicted.shape == (40, 20)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, scores(model, batch), atol=1e-5)


@pytest.mark.parametrize("model_class", MODELS)
def test_the_loss_in_fit_is_that_of_the_scores_at_the_targets(model_class, sequences):
    model = built(model_class, tie_embeddings=False)
    model.compile(keras.optimizers.SGD(0.0))
    inputs, targets = BATCHES[model_class](sequences, max_length=8, batch_size=100)[0]
    hidden = ops.convert_to_numpy(model(inputs))
    logits = (hidden @ ops.convert_to_numpy(model.table).T)[..., 3:]
    entropy = np.log(np.exp(logits).sum(-1))
    asked = targets >= 3
    assert 0 < asked.sum() < targets.size
    hit = np.take_along_axis(logits, np.maximum(targets - 3, 0)[..., None], axis=-1)[..., 0]
    expected = (entropy - hit)[asked].mean()
    history = model.fit(inputs, targets, batch_size=100, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    evaluated = model.evaluate(inputs, targets, batch_size=100, verbose=0)
    assert evaluated == pytest.approx(expected, rel=1e-5)


def test_what_follows_each_item_is_learned():
    items = np.array([3 + (start + step) % 17 for start in range(17) for step in range(8)])
    sequences = UserSequences(items.astype("int32"), np.arange(18) * 8)
    keras.utils.set_random_seed(0)
    model = NextBehaviorModel(BehaviorEncoder(**SMALL | {"emb_dim": 16}))
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(next_batches(sequences, max_length=8), epochs=40, verbose=0)
    asked = scores(model, padded_batch(sequences.newest(4), max_length=8))
    # The item after 19 is 3 again.
    expected = 3 + (sequences.items[7::8] - 2) % 17
    assert (asked[:, 3:].argmax(-1) + 3 == expected).mean() > 0.9


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_sampled_loss_draws_anew_at_every_step_of_a_compiled_fit(tie_embeddings, sequences):
    model = built(NextBehaviorModel, tie_embeddings)
    # Nothing is learned, so the losses differ by the draws only.
    model.compile(keras.optimizers.SGD(0.0), loss=SampledCrossEntropy(5, seed=1))
    inputs, targets = next_batches(sequences, max_length=8, batch_size=100)[0]
    losses = [model.train_on_batch(inputs, targets) for _ in range(4)]
    losses += model.fit(inputs, targets, batch_size=100, epochs=4, verbose=0).history["loss"]
    assert len({round(float(loss), 6) for loss in losses}) == 8


def test_a_causal_encoder_is_what_next_behavior_needs():
    with pytest.raises(ValueError, match=r"causal=False.*causal=True or causal=None"):
        NextBehaviorModel(BehaviorEncoder(**SMALL, causal=False))
    undecided = BehaviorEncoder(**SMALL)
    NextBehaviorModel(undecided)
    assert undecided.causal is True
    assert undecided.transformer.causal is True


def test_a_masked_model_looks_both_ways_unless_told_otherwise():
    undecided, told = BehaviorEncoder(**SMALL), BehaviorEncoder(**SMALL, causal=True)
    MaskedBehaviorModel(undecided)
    MaskedBehaviorModel(told)
    assert (undecided.causal, told.causal) == (False, True)


@pytest.mark.parametrize("model_class", MODELS)
def test_losses_and_metrics_that_would_see_hidden_states_are_refused(model_class):
    model = model_class(BehaviorEncoder(**SMALL))
    for loss in ("sparse_categorical_crossentropy", keras.losses.MeanSquaredError()):
        with pytest.raises(ValueError, match=r"must be a CatalogLoss such as CatalogCrossEntropy"):
            model.compile("adam", loss=loss)
    for name in ("metrics", "weighted_metrics"):
        with pytest.raises(ValueError, match="RankingEvaluation"):
            model.compile("adam", **{name: ["accuracy"]})
    model.compile("adam")
    assert isinstance(model.loss, CatalogCrossEntropy)


def test_one_encoder_goes_from_one_objective_to_the_next(sequences):
    encoder = BehaviorEncoder(**SMALL, causal=True)
    first = MaskedBehaviorModel(encoder)
    first.compile("adam")
    first.fit(masked_batches(sequences, max_length=8), verbose=0)
    learned = encoder.get_weights()
    second = NextBehaviorModel(encoder)
    second.compile("adam")
    for one, other in zip(encoder.get_weights(), learned, strict=True):
        np.testing.assert_array_equal(one, other)
    second.fit(next_batches(sequences, max_length=8), verbose=0)
    assert not np.array_equal(encoder.get_weights()[0], learned[0])


@pytest.mark.parametrize("options", [{}, {"similarity": "cosine", "temperature": 0.1}])
@pytest.mark.parametrize("model_class", MODELS)
def test_scores_are_the_products_of_what_asking_gives_with_the_item_vectors(
    model_class, options, sequences
):
    model = model_class(BehaviorEncoder(**SMALL), **options)
    batch = padded_batch(sequences, max_length=8)
    vectors = ops.convert_to_numpy(model(model.asking(batch)))
    assert vectors.shape == (40, 1, 8)
    items = ops.convert_to_numpy(ops.convert_to_tensor(model.item_vectors))
    np.testing.assert_allclose(vectors[:, 0] @ items.T, scores(model, batch), atol=1e-5)
    if options:
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 10, rtol=1e-5)
