"""What is the next item like?"""

import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import UserSequences, masked_batches, next_batches
from tfrec_llm.data.batches import padded_batch
from tfrec_llm.models import AttributeModel, BehaviorEncoder

SMALL = {"vocab_size": 20, "emb_dim": 8, "num_layers": 1, "max_length": 8, "dropout": 0.0}
# Even items have attribute 1, odd ones 2; those from 12 on have 3, too; 17 and 19 have none.
ATTRIBUTES = np.zeros((20, 2), int)
ATTRIBUTES[3:19, 0] = 1 + np.arange(3, 19) % 2
ATTRIBUTES[12:19, 1] = 3
ATTRIBUTES[17] = 0
BATCHES = {True: next_batches, False: masked_batches}


@pytest.fixture(scope="module")
def sequences():
    """Items that change between even and odd."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 60)
    offsets = np.append(0, np.cumsum(lengths))
    items = 4 + 2 * rng.integers(0, 8, offsets[-1])
    items -= np.arange(len(items)) % 2
    return UserSequences(items.astype("int32"), offsets)


def model_of(causal, **options):
    return AttributeModel(BehaviorEncoder(**SMALL | options, causal=causal), ATTRIBUTES)


@pytest.mark.parametrize("causal", [True, False])
def test_attribute_model_is_a_sound_keras_model(causal, sequences):
    run_layer_test(
        AttributeModel,
        {"encoder": BehaviorEncoder(**SMALL, causal=causal), "attributes": ATTRIBUTES},
        padded_batch(sequences, max_length=8),
        output_shape=(60, 3),
        mixed_dtype="float32",
        training_batch=BATCHES[causal](sequences, max_length=8, batch_size=100)[0],
    )


@pytest.mark.parametrize("causal", [True, False])
def test_the_loss_is_the_sum_of_the_cross_entropies_of_the_attributes(causal, sequences):
    model = model_of(causal)
    model.compile(keras.optimizers.SGD(0.0))
    inputs, targets = BATCHES[causal](sequences, max_length=8, batch_size=100)[0]
    probability = 1 / (1 + np.exp(-ops.convert_to_numpy(model(inputs))))
    held = np.zeros((20, 4))
    np.put_along_axis(held, ATTRIBUTES, 1.0, axis=1)
    true = held[targets][..., 1:]
    entropy = -(true * np.log(probability) + (1 - true) * np.log(1 - probability)).sum(-1)
    asked = ATTRIBUTES[targets].any(-1)
    assert 0 < asked.sum() < (targets >= 3).sum(), "item 17 is no target"
    assert model.evaluate(inputs, targets, batch_size=100, verbose=0) == pytest.approx(
        entropy[asked].mean(), rel=1e-4
    )


@pytest.mark.parametrize("causal", [True, False])
def test_what_the_next_item_is_like_is_learned(causal, sequences):
    keras.utils.set_random_seed(0)
    model = model_of(causal, emb_dim=16)
    model.compile(keras.optimizers.Adam(0.005))
    model.fit(BATCHES[causal](sequences, max_length=8, batch_size=4), epochs=40, verbose=0)
    found = model.predict(padded_batch(sequences.newest(4), max_length=8), verbose=0)
    newest = sequences.items[sequences.offsets[1:] - 1]
    assert found.dtype == np.float32
    assert (found[np.arange(60), newest % 2] < 0.2).mean() > 0.9
    assert (found[np.arange(60), 1 - newest % 2] > 0.8).mean() > 0.9


def test_the_first_guess_is_how_many_items_have_an_attribute():
    model = model_of(True)
    model.build()
    bias = ops.convert_to_numpy(model.logits.bias)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), [8 / 15, 7 / 15, 6 / 15], atol=0.03)


def test_attributes_may_stand_in_any_order_and_are_saved_with_the_weights(tmp_path, sequences):
    turned = AttributeModel(BehaviorEncoder(**SMALL, causal=True), ATTRIBUTES[:, ::-1])
    turned.compile("adam")
    turned.fit(next_batches(sequences, max_length=8), verbose=0)
    turned.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.attributes), ATTRIBUTES)
    batches = next_batches(sequences, max_length=8)
    assert loaded.evaluate(batches, verbose=0) == pytest.approx(
        turned.evaluate(batches, verbose=0), rel=1e-5
    )
    loaded.fit(batches, verbose=0)


def test_attributes_that_do_not_fit_are_told():
    encoder = BehaviorEncoder(**SMALL)
    for wrong, message in (
        (ATTRIBUTES[:5], r"integers of shape \[20, width\]"),
        (ATTRIBUTES.astype(float), r"integers of shape \[20, width\]"),
        (0 * ATTRIBUTES, "0 or more, and one of them more"),
        (ATTRIBUTES - 1, "0 or more, and one of them more"),
        (np.ones_like(ATTRIBUTES), "has an attribute twice"),
        (None, "Give attributes, or num_attributes"),
    ):
        with pytest.raises(ValueError, match=message):
            AttributeModel(encoder, wrong)
    with pytest.raises(ValueError, match="an attribute 3, but num_attributes is 2"):
        AttributeModel(encoder, ATTRIBUTES, num_attributes=2)


@pytest.mark.parametrize(
    "options", [{"loss": "mse"}, {"metrics": ["auc"]}, {"weighted_metrics": ["auc"]}]
)
def test_a_loss_and_metrics_that_would_see_the_wrong_things_are_refused(options):
    with pytest.raises(ValueError, match="has its own loss"):
        model_of(True).compile("adam", **options)
