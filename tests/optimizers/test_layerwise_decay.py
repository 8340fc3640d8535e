import keras
import numpy as np
import pytest
from keras import ops
from small_models import click_data, click_model, weights_of

from tfrec_llm.optimizers import Lamb, LayerwiseDecay, LazyAdam, Lookahead
from tfrec_llm.training import variable_depths

GRADIENTS = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def stepped(make, start=2.0):
    """The values of weights at the depths 0, 1 and 2 after some steps."""
    weights = [keras.Variable([start] * 3, name=name) for name in ("head", "high", "low")]
    optimizer = make({weights[1].path: 1, weights[2].path: 2})
    for gradient in GRADIENTS:
        optimizer.apply([ops.convert_to_tensor(gradient)] * 3, weights)
    return [ops.convert_to_numpy(weight) for weight in weights]


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.3),
        lambda: keras.optimizers.RMSprop(0.1, gradient_accumulation_steps=2),
        lambda: LazyAdam(0.1),
        lambda: Lamb(0.1, weight_decay=0.1),
    ],
)
def test_every_depth_is_stepped_as_by_a_plain_optimizer_of_its_own_rate_on_every_backend(make):
    found = stepped(lambda depths: LayerwiseDecay(make(), depths=depths, decay=0.5))

    def plain(factor):
        def slower(depths):
            optimizer = make()
            optimizer.learning_rate = 0.1 * factor
            return optimizer

        return stepped(slower)

    for depth in range(3):
        np.testing.assert_allclose(found[depth], plain(0.5**depth)[depth], rtol=1e-6)


def test_at_decay_one_it_is_the_plain_optimizer():
    model, plain = click_model(), click_model()
    x, y = click_data(16)
    depths = variable_depths(model.encoder)
    model.compile(LayerwiseDecay("adam", depths=depths, decay=1.0), "binary_crossentropy")
    plain.compile("adam", "binary_crossentropy")
    for each in (model, plain):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for found, expected in zip(weights_of(model), weights_of(plain), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_model_steps_by_depth_is_saved_and_trains_on_on_every_backend(tmp_path):
    model = click_model()
    x, y = click_data(16)
    depths = variable_depths(model.encoder)
    # Steps of Adam have the length of the learning rate at first.
    model.compile(LayerwiseDecay("adam", depths=depths, decay=0.5), "binary_crossentropy")
    before = weights_of(model)
    model.fit(x, y, batch_size=16, verbose=0)
    expected = {"head": 1.0, "block_1": 0.5, "block_0": 0.25, "item_embedding": 0.125}
    for weight, new, old in zip(model.weights, weights_of(model), before, strict=True):
        for part, factor in expected.items():
            if part in weight.path:
                assert np.abs(new - old).max() == pytest.approx(0.001 * factor, rel=0.01)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, LayerwiseDecay)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for found, again in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_allclose(found, again, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has gradients of rows"
)
def test_only_the_rows_that_are_used_are_touched_by_a_lazy_optimizer():
    import tensorflow as tf

    table = keras.Variable(np.ones((4, 2)), name="table")
    optimizer = LayerwiseDecay(LazyAdam(0.1), depths={table.path: 1}, decay=0.5)
    assert optimizer.takes_sparse_rows
    rows = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([1, 1, 3]), tf.constant([4, 2]))
    optimizer.apply([rows], [table])
    np.testing.assert_allclose(ops.convert_to_numpy(table)[:, 0], [1, 0.95, 1, 0.95], rtol=1e-5)


def test_the_rate_is_that_of_the_inner_optimizer():
    inner = keras.optimizers.Adam(keras.optimizers.schedules.PolynomialDecay(0.1, 4, 0.0))
    optimizer = LayerwiseDecay(inner, depths={"a": 1})
    weight = keras.Variable([1.0], name="a")
    optimizer.apply([ops.ones(1)], [weight])
    assert float(optimizer.learning_rate) == pytest.approx(0.075)
    assert optimizer.factor(weight) == 0.8
    other = LayerwiseDecay("sgd", depths={"a": 1})
    other.learning_rate = 0.5
    assert float(other.inner_optimizer.learning_rate) == 0.5


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"decay must lie in 0\.\.1, above 0, got 1\.5"):
        LayerwiseDecay("adam", depths={}, decay=1.5)
    for around in (Lookahead, keras.optimizers.LossScaleOptimizer):
        with pytest.raises(ValueError, match=r"LayerwiseDecay\(optimizer\)\)"):
            LayerwiseDecay(around(keras.optimizers.Adam()), depths={"a": 1})
        around(LayerwiseDecay("adam", depths={"a": 1}))
    with pytest.raises(ValueError, match="None of the weights"):
        LayerwiseDecay("adam", depths={"a": 1}).build([keras.Variable([1.0], name="b")])
