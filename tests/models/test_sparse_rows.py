"""Training that touches only the rows of the item table that a step uses."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.data import UserSequences, masked_batches, next_batches
from tfrec_llm.losses import CatalogCrossEntropy, SampledCrossEntropy
from tfrec_llm.models import BehaviorEncoder, MaskedBehaviorModel, NextBehaviorModel
from tfrec_llm.optimizers import LazyAdam

ITEMS, WIDTH, STEPS = 997, 8, 4
BATCHES = {NextBehaviorModel: next_batches, MaskedBehaviorModel: masked_batches}

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has gradients of rows"
)


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # Some items occur often, others never.
    items = 3 + (rng.zipf(1.3, offsets[-1]) - 1) % 300
    return UserSequences(items.astype("int32"), offsets)


def made(model_class, optimizer, *, loss=None, encoder=None, **options):
    keras.utils.set_random_seed(0)
    encoder = BehaviorEncoder(ITEMS, WIDTH, 1, 2, dropout=0.0, **(encoder or {}))
    model = model_class(encoder, **options)
    model.build()
    model.compile(optimizer, loss=loss or SampledCrossEntropy(16, seed=1))
    return model


class PlainLazyAdam:
    """Adam by the book, row by row, of the rows whose gradient is not zero."""

    def __init__(self, values, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-3):
        self.values = [value.astype("float64") for value in values]
        self.mean = [np.zeros_like(value) for value in self.values]
        self.square = [np.zeros_like(value) for value in self.values]
        self.rate, self.beta_1, self.beta_2, self.epsilon = rate, beta_1, beta_2, epsilon
        self.steps = 0

    def step(self, gradients, row_wise):
        self.steps += 1
        correction = np.sqrt(1 - self.beta_2**self.steps) / (1 - self.beta_1**self.steps)
        for which, gradient in enumerate(gradients):
            value, mean, square = self.values[which], self.mean[which], self.square[which]
            rows = range(len(value)) if value.ndim > 1 else [...]
            for row in rows:
                if which in row_wise and not gradient[row].any():
                    continue
                mean[row] = self.beta_1 * mean[row] + (1 - self.beta_1) * gradient[row]
                square[row] = self.beta_2 * square[row] + (1 - self.beta_2) * gradient[row] ** 2
                value[row] -= (
                    self.rate * correction * mean[row] / (np.sqrt(square[row]) + self.epsilon)
                )


@pytest.mark.parametrize("options", [{}, {"tie_embeddings": False}, {"similarity": "cosine"}])
@pytest.mark.parametrize("model_class", [NextBehaviorModel, MaskedBehaviorModel])
def test_steps_on_sparse_rows_are_those_of_dense_gradients_and_a_plain_row_wise_adam(
    model_class, options, sequences
):
    import tensorflow as tf

    # A large epsilon, as Adam makes much of what is but rounding in a small gradient.
    sparse = made(model_class, LazyAdam(0.01, epsilon=1e-3), **options)
    # The same model, whose dense gradients are taken step by step.
    dense = made(model_class, keras.optimizers.SGD(0.0), **options)
    plain = PlainLazyAdam(dense.get_weights())
    row_wise = [
        number for number, weight in enumerate(dense.trainable_weights) if weight.shape[0] == ITEMS
    ]
    assert len(row_wise) == (2 if options == {"tie_embeddings": False} else 1)
    batches = BATCHES[model_class](sequences, batch_size=2, max_length=8)
    for number in range(STEPS):
        x, y = batches[number]
        dense.set_weights([value.astype("float32") for value in plain.values])
        with tf.GradientTape() as tape:
            loss = dense.compute_loss(y=y, y_pred=dense(x, training=True))
        gradients = tape.gradient(loss, [weight.value for weight in dense.trainable_weights])
        assert not any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        plain.step([gradient.numpy() for gradient in gradients], row_wise)
        assert float(sparse.train_on_batch(x, y)) == pytest.approx(float(loss), rel=1e-4)
    for found, expected in zip(sparse.get_weights(), plain.values, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_that_no_step_uses_and_their_moments_do_not_change(sequences):
    model = made(NextBehaviorModel, LazyAdam(0.01), loss=SampledCrossEntropy(8, seed=1))
    before = ops.convert_to_numpy(model.table).copy()
    batches = next_batches(sequences, batch_size=2, max_length=8)
    for number in range(2):
        model.train_on_batch(*batches[number])
    changed = (ops.convert_to_numpy(model.table) != before).any(axis=1)
    read = np.unique(np.concatenate([batches[n][0]["items"].ravel() for n in range(2)]))
    asked = np.unique(np.concatenate([batches[n][1].ravel() for n in range(2)]))
    # What was read and asked for, the padding's row among it, and 8 draws at each step.
    assert changed.sum() <= len(np.union1d(read, asked)) + 16 + 1
    assert changed[asked[asked > 2]].all()
    moments = [
        ops.convert_to_numpy(variable)
        for variable in model.optimizer.variables
        if tuple(variable.shape) == (ITEMS, WIDTH)
    ]
    assert len(moments) == 2
    for moment in moments:
        np.testing.assert_array_equal((moment != 0).any(axis=1), changed)


@pytest.mark.parametrize("options", [{}, {"tie_embeddings": False}, {"similarity": "cosine"}])
def test_a_step_computes_nothing_of_the_tables_size(options, sequences):
    import tensorflow as tf

    def largest(optimizer, loss=None):
        """The sizes of what the operations of a training step give."""
        model = made(NextBehaviorModel, optimizer, loss=loss, **options)
        model.optimizer.build(model.trainable_variables)
        x, y = next_batches(sequences, batch_size=2, max_length=8)[0]
        step = tf.function(model.train_step, autograph=False).get_concrete_function((x, y))
        graphs = [
            step.graph,
            *(f.graph for f in step.graph._functions.values() if hasattr(f, "graph")),
        ]
        shapes = [
            output.shape
            for graph in graphs
            for operation in graph.get_operations()
            for output in operation.outputs
            if output.dtype != tf.resource and output.shape.rank
        ]
        return max(int(np.prod([side or 1 for side in shape])) for shape in shapes)

    assert largest(LazyAdam()) < ITEMS * WIDTH
    assert largest(keras.optimizers.Adam()) >= ITEMS * WIDTH
    assert largest(LazyAdam(), CatalogCrossEntropy()) >= ITEMS * WIDTH


def test_an_encoder_trained_by_rows_gives_whole_gradients_to_other_optimizers(sequences):
    model = made(NextBehaviorModel, LazyAdam())
    batches = next_batches(sequences, batch_size=2, max_length=8)
    model.train_on_batch(*batches[0])
    weights = model.get_weights()
    model.compile(keras.optimizers.Adagrad(0.1), loss=SampledCrossEntropy(16, seed=1))
    model.train_on_batch(*batches[0])
    other = made(NextBehaviorModel, keras.optimizers.Adagrad(0.1))
    other.set_weights(weights)
    other.train_on_batch(*batches[0])
    for found, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_half_precision_trains_by_rows_too(sequences):
    model = made(NextBehaviorModel, LazyAdam(0.01), encoder={"dtype": "mixed_bfloat16"})
    batches = next_batches(sequences, max_length=8, batch_size=4)
    losses = model.fit(batches, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.jit_compile is False
