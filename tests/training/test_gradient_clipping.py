"""Clipping sees the whole gradient of a row that a batch uses several times."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import click_data, click_model, weights_of

from tfrec_llm.data import UserSequences, next_batches
from tfrec_llm.losses import SampledCrossEntropy
from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel
from tfrec_llm.optimizers import LayerwiseDecay, LazyAdam
from tfrec_llm.training import AdversarialTraining, variable_depths

CLIPPING = [{"clipnorm": 0.01}, {"global_clipnorm": 0.02}, {"clipvalue": 0.001}]


def clipped(gradients, *, clipnorm=None, global_clipnorm=None, clipvalue=None):
    if clipvalue:
        return [np.clip(gradient, -clipvalue, clipvalue) for gradient in gradients]
    norms = [np.sqrt((gradient.astype("float64") ** 2).sum()) for gradient in gradients]
    if global_clipnorm:
        norms = [np.sqrt(sum(norm**2 for norm in norms))] * len(norms)
    limit = clipnorm or global_clipnorm
    assert any(norm > limit for norm in norms)
    return [
        gradient * min(1.0, limit / max(norm, 1e-12))
        for gradient, norm in zip(gradients, norms, strict=True)
    ]


def steps_of(make, x, y, **clipping):
    """What a step of plain gradient descent takes off each weight."""
    trained = make()
    before = weights_of(trained)
    trained.compile(keras.optimizers.SGD(1.0, **clipping), "binary_crossentropy")
    trained.train_on_batch(x, y)
    return [old - new for old, new in zip(before, weights_of(trained), strict=True)]


@pytest.mark.parametrize("clipping", CLIPPING)
@pytest.mark.parametrize("wrap", [lambda model: model, AdversarialTraining])
def test_a_clipped_step_is_the_whole_step_clipped_on_every_backend(wrap, clipping):
    x, y = click_data(8)
    x["items"] = np.where(x["segments"] > 0, 5, 0).astype("int32")  # one row, used 30 times

    def make():
        return wrap(click_model())

    expected = clipped(steps_of(make, x, y), **clipping)
    for found, step in zip(steps_of(make, x, y, **clipping), expected, strict=True):
        np.testing.assert_allclose(found, step, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has gradients of rows"
)
@pytest.mark.parametrize("clipping", CLIPPING)
def test_steps_on_sparse_rows_are_clipped_like_dense_ones(clipping):
    # The newest items repeat; rows that no step uses do not move in the first one.
    sequences = UserSequences(np.array([3, 4, 3, 4, 3, 5, 3, 4] * 2, "int32"), np.array([0, 8, 16]))
    batch = next_batches(sequences, batch_size=1)[0]
    found = []
    for optimizer, slow in (
        (LazyAdam, False),
        (LazyAdam, True),
        (keras.optimizers.Adam, False),
        (keras.optimizers.Adam, True),
    ):
        keras.utils.set_random_seed(0)
        model = NextBehaviorModel(BehaviorEncoder(20, 8, num_layers=1, dropout=0.0))
        model.build()
        # With such an epsilon the length of a step follows that of its gradient.
        stepping = optimizer(1.0, epsilon=1.0, **clipping)
        if slow:
            depths = variable_depths(model.encoder)
            stepping = LayerwiseDecay(stepping, depths=depths, decay=0.5)
        model.compile(stepping, loss=SampledCrossEntropy(8, seed=1))
        model.train_on_batch(*batch)
        found.append(weights_of(model))
    for of_lazy, of_adam in ((found[0], found[2]), (found[1], found[3])):
        for lazy, dense in zip(of_lazy, of_adam, strict=True):
            np.testing.assert_allclose(lazy, dense, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has gradients of rows"
)
def test_keras_still_clips_the_uses_of_a_row_one_by_one():
    # When this fails, Keras' own embeddings and optimizers clip rightly, too.
    table = keras.layers.Embedding(2, 1, embeddings_initializer="zeros")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), table, keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(1.0, clipnorm=1.0), keras.losses.MeanSquaredError("sum"))
    model.train_on_batch(np.array([[1, 1, 1, 1]]), np.full((1, 4), 5.0))
    step = float(ops.convert_to_numpy(table.embeddings)[1, 0])
    # Each use has a gradient of 2.5: together 10, whose clipped length is 1.
    assert step == pytest.approx(2.0, rel=1e-5)
