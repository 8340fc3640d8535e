import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.optimizers import LazyAdam, Lookahead

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has gradients of rows"
)
GRADIENTS = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")


def stepped(optimizer, gradients, start=(1, 1, 1, 1)):
    weight = keras.Variable(np.asarray(start, "float32"))
    found = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
        found.append(ops.convert_to_numpy(weight))
    return np.stack(found)


@pytest.mark.parametrize(("period", "share"), [(1, 0.3), (2, 0.5), (3, 0.8)])
def test_it_goes_part_of_the_way_at_the_end_of_every_period(period, share):
    found = stepped(
        Lookahead(keras.optimizers.SGD(0.5), sync_period=period, slow_step_size=share), GRADIENTS
    )
    weight, slow = np.ones(4), np.ones(4)
    for step, gradient in enumerate(GRADIENTS, 1):
        weight = weight - 0.5 * gradient
        if step % period == 0:
            weight = slow = slow + share * (weight - slow)
        np.testing.assert_allclose(found[step - 1], weight, rtol=1e-5, atol=1e-6)


def test_a_whole_step_leaves_the_inner_optimizer_alone():
    inner = stepped(keras.optimizers.Adam(0.1), GRADIENTS)
    found = stepped(Lookahead(keras.optimizers.Adam(0.1), slow_step_size=1.0), GRADIENTS)
    np.testing.assert_allclose(found, inner, rtol=1e-6)


def test_weights_loaded_between_periods_are_where_it_goes_on_from():
    optimizer = Lookahead(keras.optimizers.SGD(1.0), sync_period=2)
    weight = keras.Variable([10.0])
    for _ in range(2):
        optimizer.apply([ops.convert_to_tensor([1.0])], [weight])
    weight.assign([100.0])
    for _ in range(2):
        optimizer.apply([ops.convert_to_tensor([1.0])], [weight])
    assert float(weight[0]) == 99.0


def test_rate_and_steps_are_those_of_the_inner_optimizer():
    inner = keras.optimizers.Adam(0.1)
    optimizer = Lookahead(inner)
    optimizer.learning_rate = 0.025
    assert float(inner.learning_rate) == pytest.approx(0.025)
    stepped(optimizer, GRADIENTS)
    assert int(optimizer.iterations) == int(inner.iterations) == 7
    assert not optimizer.takes_sparse_rows
    assert Lookahead(LazyAdam()).takes_sparse_rows


def test_accumulated_steps_count_once():
    def found(optimizer, gradients):
        return stepped(optimizer, gradients)[-1]

    accumulating = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    twice = np.repeat(GRADIENTS[:4], 2, axis=0)
    np.testing.assert_allclose(
        found(Lookahead(accumulating, sync_period=2), twice),
        found(Lookahead(keras.optimizers.SGD(0.5), sync_period=2), GRADIENTS[:4]),
        rtol=1e-6,
    )


@on_tensorflow
def test_repeated_rows_are_added_up_for_an_inner_optimizer_that_does_not():
    import tensorflow as tf

    def after(gradient):
        return stepped(Lookahead(keras.optimizers.Adagrad(0.1)), [gradient], np.ones((3, 2)))

    dense = np.array([[0, 0], [4, 4], [1, 1]], "float32")
    weight = keras.Variable(np.ones((3, 2)))
    rows = tf.IndexedSlices(tf.ones((5, 2)), tf.constant([1, 1, 2, 1, 1]), tf.constant([3, 2]))
    Lookahead(keras.optimizers.Adagrad(0.1)).apply([rows], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), after(dense)[0], rtol=1e-6)


@on_tensorflow
def test_between_the_ends_of_a_period_a_lazy_step_makes_nothing_of_the_size_of_the_table():
    import tensorflow as tf

    num_rows = 100_000
    table = tf.Variable(tf.ones((num_rows, 4)))
    optimizer = Lookahead(LazyAdam(0.1), sync_period=2)
    optimizer.build([table])

    @tf.function
    def step(used):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, used))
        optimizer.apply(tape.gradient(loss, [table]), [table])

    graph = step.get_concrete_function(tf.TensorSpec([2], "int32")).graph
    for operation in graph.get_operations():  # those of the branches are in graphs of their own
        assert all(num_rows not in output.shape.as_list() for output in operation.outputs)
    for _ in range(2):
        step(tf.constant([7, 7]))
    changed = tf.where(tf.reduce_any(table != 1.0, axis=1)).numpy().ravel()
    assert changed.tolist() == [7]
    np.testing.assert_allclose(table[7], 0.9, rtol=1e-5)  # half of two steps of 0.1


DATA = np.random.default_rng(1).normal(size=(48, 4)).astype("float32")


def model(optimizer, precision="float32"):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(1, dtype=precision)]
    found = keras.Sequential([*layers, keras.layers.Activation("linear", dtype="float32")])
    found.compile(optimizer=optimizer, loss="mse")
    return found


def fit(each, epochs=1):
    arguments = {"epochs": epochs, "batch_size": 16, "shuffle": False, "verbose": 0}
    return each.fit(DATA, DATA.sum(axis=1), **arguments).history["loss"]


def test_a_model_saved_within_a_period_goes_on_as_if_it_had_not_stopped(tmp_path):
    first = model(Lookahead(keras.optimizers.Adam(0.1, clipnorm=1.0), sync_period=5))
    losses = fit(first, epochs=4)
    assert losses[-1] < losses[0]
    first.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer, Lookahead)
    assert again.optimizer.get_config() == first.optimizer.get_config()
    for _ in range(2):
        for each in (first, again):
            fit(each)
    for found, expected in zip(again.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_in_half_precision_keras_scales_the_loss_around_it():
    half = model(Lookahead("adam", sync_period=2), precision="mixed_float16")
    wrapped = keras.optimizers.LossScaleOptimizer(half.optimizer, initial_scale=64.0)
    half.compile(optimizer=wrapped, loss="mse")
    plain = model(Lookahead("adam", sync_period=2))
    for each in (half, plain):
        fit(each)
    for found, expected in zip(half.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_constructor_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="sync_period must be 1 or more"):
        Lookahead("adam", sync_period=0)
    with pytest.raises(ValueError, match=r"slow_step_size lie in 0\.\.1, got 6 and 1\.5"):
        Lookahead("adam", slow_step_size=1.5)
    with pytest.raises(ValueError, match=r"LossScaleOptimizer\(Lookahead\(optimizer\)\)"):
        Lookahead(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
