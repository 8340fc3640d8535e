import functools

import keras
import numpy as np
import pytest
from small_models import click_data, click_model, weights_of

from tfrec_llm.data import (
    ConsistencyBatches,
    RankingBatches,
    UserSequences,
    mask,
    next_batches,
)
from tfrec_llm.training import AdversarialTraining, ConsistencyTraining

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 3)).astype("float32"), np.array([[1.0], [0.0], [0.0], [1.0]], "float32")
PLAIN, OTHER = (RNG.normal(size=(6, 3)).astype("float32") for _ in range(2))
WEIGHT = np.array([1.0, 0.0, 2.0, 1.0, 1.0, 0.5], "float32")


def logistic():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])


def by_hand(kernel, bias, ramp, weight):
    """The loss and its gradients, written out; the plain view is given."""
    p = 1 / (1 + np.exp(-(X @ kernel + bias)))
    loss = -(Y * np.log(p) + (1 - Y) * np.log(1 - p)).mean()
    slope = (p - Y) / len(Y)
    wanted, given = (1 / (1 + np.exp(-(view @ kernel + bias))) for view in (PLAIN, OTHER))
    share = weight[:, None] / weight.sum()
    loss += ramp * (share * (given - wanted) ** 2).sum()
    back = ramp * share * 2 * (given - wanted) * given * (1 - given)
    return loss, X.T @ slope + OTHER.T @ back, slope.sum(0) + back.sum(0)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_that_of_a_slow_computation_by_hand_on_every_backend(weighted):
    model = logistic()
    consistent = ConsistencyTraining(model, weight=2.0, ramp_steps=2)
    consistent.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
    batch = {"labelled": X, "unlabelled": PLAIN, "other_view": OTHER}
    if weighted:
        batch["unlabelled_weight"] = WEIGHT
    kernel, bias = (value.astype("float64") for value in weights_of(model))
    for done in (0.0, 0.5, 1.0, 1.0):
        ramp = 2.0 * np.exp(-5.0 * (1.0 - done) ** 2)
        expected, *slopes = by_hand(kernel, bias, ramp, WEIGHT if weighted else np.ones(6))
        kernel, bias = kernel - 0.5 * slopes[0], bias - 0.5 * slopes[1]
        assert float(consistent.train_on_batch(batch, Y)) == pytest.approx(expected, rel=1e-5)
        for found, value in zip(weights_of(model), (kernel, bias), strict=True):
            np.testing.assert_allclose(found, value, atol=1e-6)


def test_without_another_view_dropout_makes_the_difference_and_none_makes_none():
    x, y = click_data(8)
    losses = {}
    for dropout in (0.0, 0.5):
        model = click_model(dropout=dropout)
        plain = click_model(dropout=dropout)
        for each in (consistent := ConsistencyTraining(model, weight=100.0), plain):
            each.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
        loss = float(consistent.train_on_batch({"labelled": x, "unlabelled": x}, y))
        losses[dropout] = loss - float(plain.train_on_batch(x, y))
    assert losses[0.0] == pytest.approx(0.0, abs=1e-5)
    assert losses[0.5] > 0.1


class Batches(keras.utils.PyDataset):
    """Batches of eight."""

    def __init__(self, inputs, *rest):
        super().__init__()
        self.inputs, self.rest, self.epochs = inputs, rest, 0

    def __len__(self):
        return len(self.inputs["items"]) // 8

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        return (inputs, *(values[rows] for values in self.rest)) if self.rest else inputs

    def on_epoch_end(self):
        self.epochs += 1


def test_batches_pair_every_labelled_batch_with_the_next_unlabelled_one():
    x, y = click_data(16)
    others, _ = click_data(24, seed=1)
    labelled, unlabelled = Batches(x, y), Batches(others)
    augment = functools.partial(mask, rate=0.5)
    batches = ConsistencyBatches(labelled, unlabelled, augment=augment, seed=3)
    assert len(batches) == 2
    seen = []
    for epoch in range(2):
        for index in range(2):
            inputs, labels = batches[index]
            np.testing.assert_array_equal(labels, y[8 * index : 8 * index + 8])
            np.testing.assert_array_equal(inputs["labelled"]["items"], labelled[index][0]["items"])
            seen.append(inputs)
            rng = np.random.default_rng([3, epoch, index])
            again = augment(inputs["unlabelled"], rng)["items"]
            np.testing.assert_array_equal(inputs["other_view"]["items"], again)
        batches.on_epoch_end()
    for number, inputs in enumerate(seen):
        expected = unlabelled[number % 3]["items"]
        np.testing.assert_array_equal(inputs["unlabelled"]["items"], expected)
    assert labelled.epochs == unlabelled.epochs == 2


def test_a_training_that_is_taken_up_gets_the_batches_of_its_epoch():
    rng = np.random.default_rng(0)
    sequences = UserSequences(
        rng.integers(3, 20, 40).astype("int32"),
        np.arange(0, 41, 4),
        times=np.tile([1, 2, 3, 4], 10),
    )
    shown = {"users": np.arange(10), "times": np.full(10, 9), "candidates": np.arange(3, 13)}

    def batches():
        labelled = next_batches(sequences, batch_size=1, max_length=4, row_length=8)
        unlabelled = RankingBatches(sequences, **shown, batch_size=2, shuffle=True)
        return ConsistencyBatches(labelled, unlabelled, augment=functools.partial(mask, rate=0.5))

    going, taken_up = batches(), batches()
    for _ in range(2):
        going.on_epoch_end()
    taken_up.set_epoch(2)
    for index in range(len(going)):
        for one, other in zip(
            keras.tree.flatten(going[index]), keras.tree.flatten(taken_up[index]), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_weights_of_unlabelled_batches_are_kept_and_their_labels_are_not():
    x, y = click_data(8)
    weights = np.arange(8.0)
    inputs, _, kept = ConsistencyBatches(Batches(x, y, weights), Batches(x, y, weights))[0]
    assert sorted(inputs) == ["labelled", "unlabelled", "unlabelled_weight"]
    np.testing.assert_array_equal(inputs["unlabelled_weight"], weights)
    np.testing.assert_array_equal(kept, weights)
    with pytest.raises(ValueError, match="no unlabelled batches"):
        ConsistencyBatches(Batches(x, y), Batches({"items": np.zeros((0, 8))}))


def test_places_without_an_impression_weigh_nothing():
    sequences = UserSequences(np.arange(3, 7, dtype="int32"), np.array([0, 4]), times=np.arange(4))
    shown = {"users": [0, 0, 0], "times": [3, 9, 9], "candidates": [3, 4, 5]}
    labelled = RankingBatches(sequences, **shown, labels=[0, 1, 0])
    inputs, *_ = ConsistencyBatches(labelled, RankingBatches(sequences, **shown))[0]
    assert inputs["unlabelled_weight"].sum() == 3
    present = inputs["unlabelled"]["candidates"] > 0
    np.testing.assert_array_equal(inputs["unlabelled_weight"] > 0, present)


def test_it_is_fitted_evaluated_saved_and_trained_on(tmp_path):
    x, y = click_data(16)
    others, _ = click_data(24, seed=1)
    augment = functools.partial(mask, rate=0.5)
    batches = ConsistencyBatches(Batches(x, y), Batches(others), augment=augment)
    model = click_model()
    consistent = ConsistencyTraining(model, ramp_steps=3)
    consistent.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    consistent.fit(batches, epochs=2, validation_data=(x, y), verbose=0)
    np.testing.assert_allclose(
        consistent.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-5
    )
    consistent.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (consistent, loaded):
        each.train_on_batch(*batches[0])
    for found, expected in zip(weights_of(loaded), weights_of(consistent), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_it_goes_inside_adversarial_training():
    x, y = click_data(8)
    inner = ConsistencyTraining(click_model(), weight=0.5)
    both = AdversarialTraining(inner, epsilon=0.1)
    both.compile("adam", "binary_crossentropy")
    losses = both.fit(ConsistencyBatches(Batches(x, y), Batches(x)), epochs=3, verbose=0).history[
        "loss"
    ]
    assert losses[-1] < losses[0]


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        ConsistencyTraining(logistic(), weight=-1)
    consistent = ConsistencyTraining(logistic())
    consistent.compile("adam", "binary_crossentropy")
    with pytest.raises(ValueError, match="no unlabelled part"):
        consistent.train_on_batch(X, Y)
