import keras
import numpy as np
import pytest
from keras import ops
from small_models import SMALL, SmallClickModel, click_data, click_model, weights_of

from tfrec_llm.models import BehaviorEncoder
from tfrec_llm.optimizers import LayerwiseDecay, Lookahead
from tfrec_llm.training import GradualUnfreezing, add_lora, freeze, variable_depths

# The head, then the highest block, the next one, the embeddings.
ORDER = ("head", "block_1", "block_0", "item_embedding")


class Recorder(keras.callbacks.Callback):
    """Notes in every epoch which parts moved."""

    def on_train_begin(self, logs=None):
        self.before, self.moved = weights_of(self.model), []

    def on_epoch_end(self, epoch, logs=None):
        now = weights_of(self.model)
        paths = [weight.path for weight in self.model.weights]
        changed = {
            part
            for part in ORDER
            for path, new, old in zip(paths, now, self.before, strict=True)
            if part in path and (new != old).any()
        }
        self.moved.append([part for part in ORDER if part in changed])
        self.before = now


def fitted(model, *, epochs, every=1, initial_epoch=0):
    x, y = click_data(16)
    recorder = Recorder()
    model.fit(
        x,
        y,
        batch_size=8,
        shuffle=False,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[GradualUnfreezing(model.encoder, every=every), recorder],
        verbose=0,
    )
    return recorder.moved


def compiled(optimizer):
    model = click_model()
    model.compile(optimizer, "binary_crossentropy")
    return model


@pytest.mark.parametrize("every", [1, 2])
def test_parts_move_from_their_epoch_on_and_not_before_on_every_backend(every):
    model = compiled(keras.optimizers.Adam(0.01))
    moved = fitted(model, epochs=4 * every + 1, every=every)
    expected = [list(ORDER[: 1 + min(3, epoch // every)]) for epoch in range(4 * every + 1)]
    assert moved == expected
    assert int(model.optimizer.iterations) == 2 * (4 * every + 1)
    assert len(model.trainable_variables) == len(model.weights)


@pytest.mark.parametrize(
    "make",
    [
        # With a large epsilon, as Adam makes much of what is but rounding in a small gradient.
        lambda encoder: Lookahead(keras.optimizers.Adam(0.01, epsilon=0.01), sync_period=2),
        lambda encoder: LayerwiseDecay(
            keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
            depths=variable_depths(encoder),
            decay=0.5,
        ),
    ],
)
def test_the_optimizer_keeps_its_state_while_parts_join_in_on_every_backend(make):
    model = click_model()
    model.compile(make(model.encoder), "binary_crossentropy")
    fitted(model, epochs=3)
    # The same by hand, where a variable that is frozen is left out of a step.
    other = click_model()
    optimizer = make(other.encoder)
    optimizer.build(other.trainable_variables)
    x, y = click_data(16)
    for epoch in range(3):
        # The norm behind the highest block goes with it.
        parts = [*ORDER[: 1 + epoch], *(["transformer/norm"] if epoch else [])]
        taken = [v for v in other.weights if any(part in v.path for part in parts)]
        gradients_of = gradients(other, taken)
        for rows in (slice(0, 8), slice(8, 16)):
            batch = {name: values[rows] for name, values in x.items()}
            optimizer.apply(gradients_of(batch, y[rows]), taken)
    optimizer.finalize_variable_values(other.trainable_variables)
    for found, expected in zip(weights_of(model), weights_of(other), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def gradients(model, variables):
    """Returns a compiled function from a batch to the loss's gradients to variables."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradients_of(x, y):
            with tf.GradientTape() as tape:
                loss = keras.losses.BinaryCrossentropy()(y, model(x, training=True))
            return tape.gradient(loss, [variable.value for variable in variables])

        return gradients_of
    import jax

    def loss_of(values, x, y):
        state = [(v, v.value) for v in model.variables]
        with keras.StatelessScope([*state, *zip(variables, values, strict=True)]):
            return keras.losses.BinaryCrossentropy()(y, model(x, training=True))

    compiled = jax.jit(jax.grad(loss_of))
    return lambda x, y: compiled([ops.convert_to_tensor(v) for v in variables], x, y)


def test_a_resumed_training_goes_on_where_it_was():
    model = compiled("adam")
    assert fitted(model, epochs=2)[-1] == ["head", "block_1"]
    assert fitted(model, epochs=4, initial_epoch=2)[0] == ["head", "block_1", "block_0"]


def test_a_saved_model_trains_on_as_a_whole(tmp_path):
    model = compiled("adam")
    fitted(model, epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x, y = click_data()
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for found, expected in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_cannot_work_is_refused():
    model = click_model()
    with pytest.raises(ValueError, match="every must be positive, got 0"):
        GradualUnfreezing(model.encoder, every=0)
    freeze(model.encoder)
    model.compile("adam", "binary_crossentropy")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="built while a part of the model was frozen"):
        fitted(model, epochs=1)
    add_lora(click_model().encoder)
    model = click_model()
    add_lora(model.encoder)
    model.compile("adam", "binary_crossentropy")
    with pytest.raises(ValueError, match=r"Call merge_lora\(encoder\) first"):
        fitted(model, epochs=1)


def test_a_model_whose_weights_are_not_there_yet_is_told_to_be_built():
    model = SmallClickModel(BehaviorEncoder(**SMALL))
    model.compile(loss="binary_crossentropy")
    with pytest.raises(ValueError, match=r"Call model\.build\(\)"):
        model.fit(*click_data(), callbacks=[GradualUnfreezing(model.encoder)], verbose=0)
