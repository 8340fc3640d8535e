import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.optimizers import LazyAdam

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has gradients of rows"
)


def rows(values, indices, num_rows):
    import tensorflow as tf

    values = tf.constant(values, "float32")
    return tf.IndexedSlices(values, tf.constant(indices), tf.constant([num_rows, values.shape[1]]))


def stepped(optimizer, gradients, start):
    """The variable after each of the gradients, one to a step."""
    variable = keras.Variable(np.asarray(start, "float32"))
    found = []
    for gradient in gradients:
        optimizer.apply([gradient], [variable])
        found.append(ops.convert_to_numpy(variable))
    return np.stack(found), optimizer


def moments(optimizer):
    return [ops.convert_to_numpy(v) for v in (optimizer._momentums[0], optimizer._velocities[0])]


@on_tensorflow
def test_repeated_rows_are_added_up_before_the_step():
    start = np.ones((6, 2))
    once, _ = stepped(LazyAdam(0.1), [rows([[4.0, 8.0], [1, 1]], [2, 5], 6)] * 2, start)
    often = rows([[1.0, 2], [1, 1], [1, 2], [1, 2], [1, 2]], [2, 5, 2, 2, 2], 6)
    found, _ = stepped(LazyAdam(0.1), [often] * 2, start)
    np.testing.assert_allclose(found, once, rtol=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_on_the_rows_it_uses_the_first_step_is_that_of_adam(amsgrad):
    gradient = np.array([[0, 0], [1, -2], [0, 0], [0, 3]], "float32")
    start = np.ones((4, 2))
    expected, _ = stepped(keras.optimizers.Adam(0.1, amsgrad=amsgrad), [gradient] * 3, start)
    found, _ = stepped(LazyAdam(0.1, amsgrad=amsgrad), [gradient] * 3, start)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@on_tensorflow
@pytest.mark.parametrize("amsgrad", [False, True])
def test_it_is_adam_where_every_step_uses_every_row(amsgrad):
    values = np.random.default_rng(0).normal(size=(5, 6, 3))
    start = np.ones((6, 3))
    order = np.random.default_rng(1).permutation(6)
    named = [rows(value[order], order, 6) for value in values]
    found, _ = stepped(LazyAdam(0.1, amsgrad=amsgrad), named, start)
    expected, _ = stepped(keras.optimizers.Adam(0.1, amsgrad=amsgrad), list(values), start)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@on_tensorflow
def test_other_rows_and_their_moments_wait():
    start = np.ones((6, 2))
    steps = [rows([[1.0, 2.0]], [row], 6) for row in (2, 2, 4)]
    found, optimizer = stepped(LazyAdam(0.1), steps, start)
    np.testing.assert_array_equal(found[2, 2], found[1, 2])
    assert (found[2][[0, 1, 3, 5]] == 1).all()
    for moment in moments(optimizer):
        assert np.flatnonzero(moment.any(axis=1)).tolist() == [2, 4]
    # Two steps of the mean: (1 - 0.9 ** 2) of the gradient; the third did not decay it.
    np.testing.assert_allclose(moments(optimizer)[0][2], [0.19, 0.38], rtol=1e-5)


def test_where_gradients_arrive_dense_zero_rows_wait_on_jax_and_decay_on_tensorflow():
    steps = [np.eye(4, dtype="float32") * [[0], [1], [0], [0]], np.eye(4) * [[0], [0], [0], [1]]]
    found, _ = stepped(LazyAdam(0.1), [step.astype("float32") for step in steps], np.ones((4, 4)))
    waited = (found[1, 1] == found[0, 1]).all()
    assert waited == (keras.backend.backend() != "tensorflow")
    assert found[1, 3, 3] < 1
    assert (found[:, [0, 2]] == 1).all()


@on_tensorflow
def test_a_step_makes_nothing_of_the_size_of_the_table():
    import tensorflow as tf

    num_rows = 1_000_000
    table = tf.Variable(tf.zeros((num_rows, 8)))
    optimizer = LazyAdam(0.1, clipnorm=1.0)
    optimizer.build([table])

    @tf.function
    def step(used):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, used) - 1.0)
        optimizer.apply(tape.gradient(loss, [table]), [table])

    graph = step.get_concrete_function(tf.TensorSpec([3], "int32")).graph
    for operation in graph.get_operations():
        assert operation.type != "ReadVariableOp" or operation.outputs[0].shape.rank == 0
        for output in operation.outputs:
            assert num_rows not in output.shape.as_list(), operation
    step(tf.constant([7, 999_999, 7]))
    for changed in (table, *optimizer._momentums, *optimizer._velocities):
        touched = tf.where(tf.reduce_any(ops.convert_to_tensor(changed) != 0, axis=1))
        assert touched.numpy().ravel().tolist() == [7, 999_999]


@on_tensorflow
@pytest.mark.parametrize("clip", [{"clipnorm": 1.0}, {"clipvalue": 0.5}, {"global_clipnorm": 1.0}])
def test_clipping_sees_the_added_up_rows(clip):
    named = rows([[3.0, 0], [1, 4], [3, 0]], [1, 0, 1], 3)
    dense = np.array([[1, 4], [6, 0], [0, 0]], "float32")
    other = np.array([2.0, -2.0], "float32")

    def after(table_gradient):
        table, bias = keras.Variable(np.ones((3, 2))), keras.Variable(np.ones(2))
        # A large epsilon makes the size of the step follow that of the gradient.
        optimizer = LazyAdam(0.1, epsilon=1.0, **clip)
        optimizer.apply([table_gradient, other], [table, bias])
        return np.concatenate([ops.convert_to_numpy(table), [ops.convert_to_numpy(bias)]])

    np.testing.assert_allclose(after(named), after(dense), rtol=1e-6)
    np.testing.assert_array_equal(after(named)[2], 1)


def lookup_model(optimizer, *, precision="float32", num_rows=20, jit_compile=False):
    """Scores of a user and an item by the product of their vectors."""
    ids = keras.Input((2,), dtype="int32")
    embedding = keras.layers.Embedding(num_rows, 4, dtype=precision)
    both = keras.layers.Dense(4, dtype=precision)(embedding(ids))
    score = keras.layers.Dense(1, dtype="float32")(keras.layers.Flatten()(both))
    model = keras.Model(ids, score)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=jit_compile)
    return model


IDS = np.random.default_rng(0).integers(0, 12, (32, 2))
LABELS = (IDS.sum(axis=1) % 3).astype("float32")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_fitted_model_changes_only_the_rows_of_its_data(jit_compile):
    keras.utils.set_random_seed(0)
    model = lookup_model(LazyAdam(0.05), jit_compile=jit_compile)
    before = model.get_weights()
    history = model.fit(IDS, LABELS, batch_size=8, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    changed = (model.get_weights()[0] != before[0]).any(axis=1)
    assert np.flatnonzero(changed).tolist() == sorted(set(IDS.ravel()))


def test_a_schedule_gives_each_step_its_rate():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.1])
    gradient = np.ones((2, 2), "float32")
    found, optimizer = stepped(LazyAdam(schedule), [gradient] * 3, np.ones((2, 2)))
    assert (found[1] == 1).all()
    np.testing.assert_allclose(found[2], 0.9, rtol=1e-5)
    again = LazyAdam.from_config(optimizer.get_config())
    assert float(again._learning_rate(5)) == pytest.approx(0.1)


def test_the_configuration_makes_the_round_trip():
    optimizer = LazyAdam(
        0.02, beta_1=0.8, beta_2=0.99, epsilon=1e-5, amsgrad=True, global_clipnorm=3.0, name="lazy"
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, LazyAdam)
    assert again.get_config() == optimizer.get_config()
    assert again.takes_sparse_rows


def test_a_saved_model_goes_on_as_if_it_had_not_stopped(tmp_path):
    model = lookup_model(LazyAdam(0.05))
    model.fit(IDS, LABELS, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(IDS, LABELS, batch_size=8, shuffle=False, verbose=0)
    assert isinstance(again.optimizer, LazyAdam)
    for found, expected in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("steps", [2, 4])
def test_accumulated_gradients_are_averaged_and_update_the_rows_of_all_their_steps(steps):
    model = lookup_model(LazyAdam(0.05, gradient_accumulation_steps=steps))
    other = lookup_model(LazyAdam(0.05))
    other.set_weights(model.get_weights())
    before = model.get_weights()[0]
    model.fit(IDS, LABELS, batch_size=32 // steps, shuffle=False, verbose=0)
    other.fit(IDS, LABELS, batch_size=32, shuffle=False, verbose=0)
    for found, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    changed = (model.get_weights()[0] != before).any(axis=1)
    assert np.flatnonzero(changed).tolist() == sorted(set(IDS.ravel()))


def test_a_moving_average_of_the_weights_covers_all_rows():
    model = lookup_model(LazyAdam(0.05, use_ema=True, ema_momentum=0.5))
    before = model.get_weights()[0]
    model.fit(IDS, LABELS, batch_size=8, verbose=0)  # its end puts the average in place
    average = ops.convert_to_numpy(model.optimizer._model_variables_moving_average[0])
    np.testing.assert_allclose(model.get_weights()[0], average)
    np.testing.assert_allclose(average[12:], before[12:], rtol=1e-6)
    assert (average[:12] != before[:12]).any()


def test_half_precision_with_a_scaled_loss_updates_the_same_rows():
    wrapped = keras.optimizers.LossScaleOptimizer(LazyAdam(0.05), initial_scale=256.0)
    model = lookup_model(wrapped, precision="mixed_float16")
    before = model.get_weights()[0]
    model.fit(IDS, LABELS, batch_size=8, verbose=0)
    changed = (model.get_weights()[0] != before).any(axis=1)
    assert np.flatnonzero(changed).tolist() == sorted(set(IDS.ravel()))


@on_tensorflow
def test_gradients_in_half_precision_are_added_up_in_that_of_the_table():
    import tensorflow as tf

    values = tf.ones((4096, 2), "bfloat16")
    gradient = tf.IndexedSlices(values, tf.zeros(4096, "int32"), tf.constant([3, 2]))
    _, optimizer = stepped(LazyAdam(0.1), [gradient], np.ones((3, 2)))
    np.testing.assert_allclose(moments(optimizer)[0][0], 409.6, rtol=1e-5)


@pytest.mark.parametrize("refused", ["weight_decay", "loss_scale_factor"])
def test_what_would_not_be_lazy_is_refused(refused):
    with pytest.raises(ValueError, match=f"takes no {refused}.*keras.optimizers"):
        LazyAdam(0.1, **{refused: 0.5})
