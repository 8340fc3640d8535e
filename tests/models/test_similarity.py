"""Scores by product and by angle."""

import numpy as np
import pytest
from keras import ops

from tfrec_llm.data import UserSequences, Vocabulary, next_batches, padded_batches
from tfrec_llm.models import BehaviorEncoder, MaskedBehaviorModel, NextBehaviorModel

VOCABULARY = Vocabulary([f"i{n}" for n in range(12)])
HISTORIES = [[f"i{(user + step) % 12}" for step in range(3 + user % 4)] for user in range(8)]
SEQUENCES = UserSequences.from_histories(HISTORIES, VOCABULARY)


def built(model_class=NextBehaviorModel, **options):
    model = model_class(
        BehaviorEncoder(VOCABULARY.size, 8, 1, 2, position_encoding="rotary"), **options
    )
    model.build()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("model_class", [NextBehaviorModel, MaskedBehaviorModel])
def test_cosine_scores_are_angles_over_the_temperature(model_class):
    batch = padded_batches(SEQUENCES)[0]
    plain = built(model_class)
    angled = built(model_class, similarity="cosine", temperature=0.1)
    scores = ops.convert_to_numpy(angled(batch))
    assert np.abs(scores).max() <= 10.0 + 1e-4
    # The table spans the hidden states, so the plain scores give them back.
    table = ops.convert_to_numpy(plain.table)
    products = ops.convert_to_numpy(plain(batch))
    hidden = np.linalg.lstsq(table, products.T, rcond=None)[0].T
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    expected = unit @ (table / np.linalg.norm(table, axis=1, keepdims=True)).T / 0.1
    np.testing.assert_allclose(scores, expected, atol=2e-3)


def test_a_temperature_divides_the_scores():
    batch = padded_batches(SEQUENCES)[0]
    scores = ops.convert_to_numpy(built()(batch))
    cooler = ops.convert_to_numpy(built(temperature=0.5)(batch))
    np.testing.assert_allclose(cooler, 2.0 * scores, rtol=1e-4)


def test_the_loss_is_that_of_the_scores():
    model = built(similarity="cosine", temperature=0.2)
    model.compile("adam")
    inputs, targets = next_batches(UserSequences.from_histories([["i1", "i5", "i3"]], VOCABULARY))[
        0
    ]
    found = float(model.test_on_batch(inputs, targets))
    shown = []
    for history, target in ((["i1"], "i5"), (["i1", "i5"], "i3")):
        scores = model.predict_on_batch(
            padded_batches(UserSequences.from_histories([history], VOCABULARY))[0]
        )[0, 3:]
        index = int(VOCABULARY.encode([target])[0]) - 3
        shown.append(np.log(np.exp(scores).sum()) - scores[index])
    assert found == pytest.approx(np.mean(shown), rel=1e-3)


def test_misspelt_options_are_told():
    with pytest.raises(ValueError, match="similarity must be one of"):
        built(similarity="angle")
    with pytest.raises(ValueError, match="temperature must be positive"):
        built(temperature=0.0)
