import json
from pathlib import Path

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from tfrec_llm.losses import RetrievalLoss

REFERENCE = Path(__file__).parents[1] / "reference" / "tfa_tfrs.json"
RETRIEVAL = json.loads(REFERENCE.read_text())["retrieval"]
QUERIES = np.array(RETRIEVAL["queries"], "float32")
CANDIDATES = np.array(RETRIEVAL["candidates"], "float32")
IDS = np.array(RETRIEVAL["candidate_ids"])
# The sampling probabilities that the reference was given, by id; each id has one.
FREQUENCIES = np.zeros(6)
FREQUENCIES[IDS] = RETRIEVAL["sampling_probability"]

OPTIONS = {
    "plain": {"remove_accidental_hits": False},
    "temperature_0.2": {"temperature": 0.2, "remove_accidental_hits": False},
    "logq": {"frequencies": FREQUENCIES, "remove_accidental_hits": False},
    "remove_accidental_hits": {},
    "logq_and_hits": {"frequencies": FREQUENCIES},
}


def stacked(queries=QUERIES, candidates=CANDIDATES):
    return np.stack([queries, candidates], axis=1)


def slow(
    queries, candidates, ids, *, temperature=1.0, log_frequencies=None, remove=True, hard=None
):
    """The losses of all queries, one after the other, in float64."""
    losses = []
    for row, query in enumerate(queries.astype("float64")):
        scores = candidates.astype("float64") @ query / temperature
        if log_frequencies is not None:
            scores = scores - log_frequencies[ids]
        negatives = [
            score
            for column, score in enumerate(scores)
            if column != row and not (remove and ids[column] == ids[row])
        ]
        negatives = sorted(negatives, reverse=True)[:hard]
        losses.append(np.logaddexp.reduce([scores[row], *negatives]) - scores[row])
    return np.array(losses)


@pytest.mark.parametrize("name", RETRIEVAL["loss_sum_over_batch"])
def test_the_loss_is_what_tensorflow_recommenders_gave(name):
    loss = RetrievalLoss(reduction="sum", **OPTIONS[name])
    expected = RETRIEVAL["loss_sum_over_batch"][name]
    assert float(loss(IDS, stacked())) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert float(loss(IDS[:, None], (QUERIES, CANDIDATES))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("hard", [None, 1, 3, 100])
def test_the_loss_is_what_a_plain_computation_gives(hard):
    rng = np.random.default_rng(0)
    queries, candidates = rng.normal(size=(2, 20, 8)).astype("float32")
    ids = rng.integers(0, 12, 20)
    counts = rng.integers(0, 9, 12)
    loss = RetrievalLoss(
        temperature=0.5, frequencies=counts, num_hard_negatives=hard, reduction="none"
    )
    found = ops.convert_to_numpy(loss(ids, stacked(queries, candidates)))
    logs = np.log(np.maximum(counts, counts[counts > 0].min()))
    expected = slow(queries, candidates, ids, temperature=0.5, log_frequencies=logs, hard=hard)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_more_candidates_than_queries_are_negatives_of_all_and_plain_to_compute():
    loss = RetrievalLoss(reduction="none")
    found = ops.convert_to_numpy(loss(IDS, (QUERIES[:2], CANDIDATES)))
    np.testing.assert_allclose(found, slow(QUERIES[:2], CANDIDATES, IDS), rtol=1e-5)


def test_weights_weigh_queries_but_leave_their_candidates_as_negatives():
    weights = np.array([1.0, 0, 2, 0.5, 0, 1])
    losses = slow(QUERIES, CANDIDATES, IDS)
    for reduction, divisor in (
        ("sum", 1),
        ("sum_over_batch_size", 6),
        ("mean_with_sample_weight", weights.sum()),
    ):
        found = float(RetrievalLoss(reduction=reduction)(IDS, stacked(), weights))
        assert found == pytest.approx((weights * losses).sum() / divisor, rel=1e-5)


def test_units_of_the_frequencies_do_not_matter_and_large_ids_stay_apart():
    once = RetrievalLoss(frequencies=FREQUENCIES)(IDS, stacked())
    often = RetrievalLoss(frequencies=1e6 * FREQUENCIES)(IDS, stacked())
    assert float(once) == pytest.approx(float(often), rel=1e-5)
    # Neighbours that are equal in float32.
    ids = 2**30 + np.arange(6)
    found = float(RetrievalLoss(reduction="sum")(ids, stacked()))
    expected = RETRIEVAL["loss_sum_over_batch"]["plain"]
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("hard", [None, 2])
def test_gradients_are_sound(hard, compiled):
    loss = RetrievalLoss(temperature=0.5, num_hard_negatives=hard, reduction="sum")

    def of(queries, candidates):
        return loss(IDS, (queries, candidates))

    value, gradients = value_and_gradients(of, QUERIES, CANDIDATES, compiled=compiled)
    assert value == pytest.approx(float(of(QUERIES, CANDIDATES)), rel=1e-6)
    arrays = [QUERIES.astype("float64"), CANDIDATES.astype("float64")]
    for which, gradient in enumerate(gradients):
        for place in [(0, 0), (2, 1), (5, 3)]:
            sides = []
            for change in (1e-5, -1e-5):
                moved = [array.copy() for array in arrays]
                moved[which][place] += change
                sides.append(slow(*moved, IDS, temperature=0.5, hard=hard).sum())
            slope = (sides[0] - sides[1]) / 2e-5
            assert gradient[place] == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_vectors_are_multiplied_soundly_in_float32(dtype):
    # Scores up to 80 000, which float16 cannot hold, and differences that bfloat16 would lose.
    scale = 100.0
    half = ops.cast(scale * stacked(), dtype)
    kept = ops.convert_to_numpy(ops.cast(half, "float32"))
    loss = RetrievalLoss(temperature=10.0, reduction="sum")
    value, (gradient,) = value_and_gradients(lambda vectors: loss(IDS, vectors), half)
    exact = slow(kept[:, 0], kept[:, 1], IDS, temperature=10.0)
    assert value == pytest.approx(exact.sum(), rel=1e-5)
    assert np.isfinite(gradient).all()


def test_a_batch_of_one_item_has_no_negatives_and_no_gradient():
    loss = RetrievalLoss()
    value, (gradient,) = value_and_gradients(lambda v: loss(np.full(6, 3), v), stacked())
    assert value == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_two_towers_learn_by_compile_and_fit():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    users = rng.integers(0, 20, 512)
    items = (users + rng.integers(0, 2, 512)) % 20
    user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    query = keras.layers.Dense(8)(keras.layers.Embedding(20, 8)(user))
    candidate = keras.layers.Embedding(20, 8)(item)
    model = keras.Model([user, item], ops.stack([query, candidate], axis=1))
    frequencies = np.bincount(items, minlength=20)
    loss = RetrievalLoss(temperature=0.2, frequencies=frequencies)
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=loss)
    losses = model.fit([users, items], items, epochs=8, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    again = keras.models.clone_model(model)
    again.compile(loss=keras.losses.deserialize(keras.losses.serialize(loss)))
    again.set_weights(model.get_weights())
    shown = [
        each.evaluate([users, items], items, batch_size=64, verbose=0) for each in (model, again)
    ]
    assert shown[0] == pytest.approx(shown[1], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"num_hard_negatives": 0}, "num_hard_negatives must be 1 or more, got 0"),
        ({"frequencies": [1, -1]}, "frequencies must be 0 or more"),
        ({"frequencies": [0, 0]}, "frequencies must be 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RetrievalLoss(**options)


def test_vectors_that_are_not_stacked_are_refused():
    with pytest.raises(ValueError, match=r"got \(6, 4\)\. Stack a model's two outputs"):
        RetrievalLoss()(IDS, QUERIES)


def test_the_configuration_makes_the_round_trip():
    loss = RetrievalLoss(
        temperature=0.3, frequencies=[1, 2], remove_accidental_hits=False, num_hard_negatives=4
    )
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
