import keras
import numpy as np
import pytest
from keras import ops
from small_models import click_data, click_model, weights_of

from tfrec_llm.data import UserSequences, next_batches
from tfrec_llm.layers import ItemEmbedding, UserEmbedding
from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel
from tfrec_llm.training import AdversarialTraining

USERS, ITEMS = np.array([0, 0, 1, 2]), np.array([3, 1, 3, 0])
CLICKED = np.array([[1.0], [0.0], [0.0], [1.0]], "float32")
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0], "float32")


def dot_model(*, layers=(UserEmbedding, ItemEmbedding), l2=0.0):
    keras.utils.set_random_seed(0)
    users = keras.Input((), dtype="int32", name="users")
    items = keras.Input((), dtype="int32", name="items")
    wide = {"embeddings_initializer": keras.initializers.RandomNormal(stddev=1.0)}
    h_u = layers[0](4, 3, name="user_embedding", **wide)(users)
    g_i = layers[1](5, 3, name="item_embedding", **wide)(items)
    both = keras.layers.Concatenate()([h_u * g_i, h_u, g_i])
    head = keras.layers.Dense(1, "sigmoid", kernel_regularizer=keras.regularizers.L2(l2))
    return keras.Model([users, items], head(both))


def by_hand(values, epsilon, weight, l2, moved=("user", "item")):
    """The loss and its gradients, written out; `values` are user and item table, kernel, bias."""

    def parts(user_table, item_table, kernel, bias):
        h_u, g_i = user_table[USERS], item_table[ITEMS]
        both = np.concatenate([h_u * g_i, h_u, g_i], axis=1)
        p = 1 / (1 + np.exp(-(both @ kernel + bias)))
        terms = -(CLICKED * np.log(p) + (1 - CLICKED) * np.log(1 - p))
        loss = (terms[:, 0] * WEIGHTS).sum() / len(USERS)
        slope = (p - CLICKED) * WEIGHTS[:, None] / len(USERS)
        to_both = slope @ kernel.T
        to_user, to_item = np.zeros_like(user_table), np.zeros_like(item_table)
        for row in range(len(USERS)):
            to_user[USERS[row]] += to_both[row, :3] * g_i[row] + to_both[row, 3:6]
            to_item[ITEMS[row]] += to_both[row, :3] * h_u[row] + to_both[row, 6:]
        return loss, [to_user, to_item, both.T @ slope, slope.sum(axis=0)]

    loss, gradients = parts(*values)
    tables = []
    for table, gradient, name in zip(values[:2], gradients[:2], ("user", "item"), strict=True):
        table = table.copy()
        for row in range(len(table)):
            length = np.sqrt((gradient[row] ** 2).sum())
            if length > 0 and name in moved:
                table[row] += epsilon * gradient[row] / length
        tables.append(table)
    worst, at_worst = parts(*tables, *values[2:])
    total = [a + weight * b for a, b in zip(gradients, at_worst, strict=True)]
    total[2] += 2 * l2 * values[2]
    return loss + weight * worst + l2 * (values[2] ** 2).sum(), total


@pytest.mark.parametrize("moved", [None, ["item_embedding"]])
def test_a_step_is_that_of_a_slow_computation_by_hand_on_every_backend(moved):
    model = dot_model(l2=0.1)
    adversarial = AdversarialTraining(model, epsilon=0.7, weight=0.6, embeddings=moved)
    adversarial.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
    values = [value.astype("float64") for value in weights_of(model)]
    for _ in range(2):
        names = ("user", "item") if moved is None else ("item",)
        expected, gradients = by_hand(values, 0.7, 0.6, 0.1, names)
        values = [value - 0.5 * slope for value, slope in zip(values, gradients, strict=True)]
        loss = adversarial.train_on_batch([USERS, ITEMS], CLICKED, sample_weight=WEIGHTS)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        for found, value in zip(weights_of(model), values, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-5)


def test_keras_embeddings_are_moved_like_ours():
    found = []
    for layers in ((UserEmbedding, ItemEmbedding), (keras.layers.Embedding,) * 2):
        model = dot_model(layers=layers)
        model.set_weights(dot_model().get_weights())
        adversarial = AdversarialTraining(model)
        adversarial.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
        adversarial.fit([USERS, ITEMS], CLICKED, verbose=0)
        found.append(weights_of(model))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_at_weight_zero_a_model_with_metrics_dropout_and_regularisers_trains_as_without():
    logs, weights = [], []
    x, y = click_data(16)
    for wrap in (lambda model: model, lambda model: AdversarialTraining(model, weight=0.0)):
        model = click_model(dropout=0.3)
        model.head.kernel_regularizer = None
        model.encoder.item_embedding.table.regularizer = keras.regularizers.L2(0.01)
        trained = wrap(model)
        trained.compile("sgd", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
        history = trained.fit(
            x, y, batch_size=16, epochs=2, shuffle=False, validation_data=(x, y), verbose=0
        )
        logs.append(list(history.history.values()))
        weights.append(weights_of(model))
    np.testing.assert_allclose(logs[0], logs[1], atol=1e-5)
    for plain, wrapped in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, wrapped, atol=1e-5)


def test_evaluate_and_predict_are_those_of_the_model_inside_which_is_compiled_along():
    x, y = click_data(16)
    model = click_model(dropout=0.3)
    adversarial = AdversarialTraining(model, epsilon=0.5)
    adversarial.compile("adam", "binary_crossentropy", weighted_metrics=[keras.metrics.AUC()])
    first = adversarial.fit(x, y, epochs=1, verbose=0).history["loss"][0]
    plain = model.evaluate(x, y, verbose=0)
    assert first > 1.5 * plain[0]  # both losses count in training
    np.testing.assert_allclose(adversarial.evaluate(x, y, verbose=0), plain, rtol=1e-5)
    np.testing.assert_allclose(
        adversarial.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5
    )


def test_several_outputs_with_losses_of_their_own_on_every_backend():
    inputs = keras.Input((), dtype="int32")
    hidden = keras.layers.Embedding(5, 3)(inputs)
    outputs = {
        "click": keras.layers.Dense(1, "sigmoid", name="click")(hidden),
        "buy": keras.layers.Dense(1, "sigmoid", name="buy")(hidden),
    }
    adversarial = AdversarialTraining(keras.Model(inputs, outputs))
    loss = {"click": "binary_crossentropy", "buy": "mse"}
    adversarial.compile("adam", loss, loss_weights={"click": 1.0, "buy": 0.5})
    history = adversarial.fit(
        ITEMS, {"click": CLICKED, "buy": 1 - CLICKED}, epochs=3, verbose=0
    ).history
    assert {"loss", "click_loss", "buy_loss"} <= set(history)
    assert history["loss"][-1] < history["loss"][0]
    parts = history["click_loss"][0] + 0.5 * history["buy_loss"][0]
    assert parts < history["loss"][0]


def test_a_pretraining_model_is_trained_with_its_own_loss_saved_and_trained_on(tmp_path):
    sequences = UserSequences(np.arange(3, 19, dtype="int32"), np.array([0, 8, 16]))
    model = NextBehaviorModel(BehaviorEncoder(20, 8, num_layers=1, dropout=0.0))
    adversarial = AdversarialTraining(model, epsilon=0.1)
    adversarial.compile(keras.optimizers.Adam(0.01))
    batches = next_batches(sequences)
    losses = adversarial.fit(batches, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    adversarial.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.epsilon, loaded.weight, loaded.embeddings) == (0.1, 1.0, None)
    for each in (adversarial, loaded):
        each.train_on_batch(*batches[0])
    for found, expected in zip(weights_of(loaded.model), weights_of(model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    model.save(tmp_path / "inner.keras")
    inner = keras.models.load_model(tmp_path / "inner.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(inner.table), ops.convert_to_numpy(model.table))


def test_what_cannot_work_is_refused():
    model = dot_model()
    for options in ({"epsilon": 0.0}, {"weight": -1.0}):
        with pytest.raises(ValueError, match="epsilon must be positive and weight 0 or more"):
            AdversarialTraining(model, **options)
    with pytest.raises(ValueError, match=r"named \['shop'\], but \['item_emb.*', 'user_emb"):
        AdversarialTraining(model, embeddings=["shop"]).tables()
    dense = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="has no embedding layers"):
        AdversarialTraining(dense).tables()
