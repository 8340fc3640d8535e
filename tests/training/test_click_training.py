import copy
import gc
import pickle
import random
import weakref

import keras
import numpy as np
import pytest

import tfrec_llm as tr
from tfrec_llm.errors import DataError
from tfrec_llm.metrics import auc


class Clicks(keras.Model):
    """A model as the documents write it."""

    def __init__(self, num_users, num_items, emb_dim=8, hid_dim=16):
        super().__init__()
        self.user_embedding = tr.UserEmbedding(vocab_size=num_users, emb_dim=emb_dim)
        self.item_embedding = tr.ItemEmbedding(vocab_size=num_items, emb_dim=emb_dim)
        self.recommendation = tr.Recommendation(emb_dim=emb_dim, hid_dim=hid_dim)

    def call(self, user_data, item_data):
        h_u = self.user_embedding(user_data)
        g_i = self.item_embedding(item_data)
        return self.recommendation(h_u, g_i)


def functional(num_users=20, num_items=30, dropout=0.0):
    users, items = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    h_u = tr.UserEmbedding(num_users, 8)(users)
    g_i = keras.layers.Dropout(dropout, seed=1)(tr.ItemEmbedding(num_items, 8)(items))
    return keras.Model([users, items], tr.Recommendation(8, 16)(h_u, g_i))


@pytest.fixture
def clicks():
    rng = np.random.default_rng(0)
    user_data, item_data = rng.integers(0, 20, 250), rng.integers(0, 30, 250)
    return user_data, item_data, (user_data % 2 == item_data % 2).astype("float32")


def probabilities(model, user_data, item_data):
    data = keras.ops.convert_to_tensor(user_data), keras.ops.convert_to_tensor(item_data)
    output = model(*data) if isinstance(model, Clicks) else model(list(data))
    return np.asarray(keras.ops.convert_to_numpy(output), np.float64)[:, 0]


def log_loss(labels, probability):
    return -np.mean(labels * np.log(probability) + (1 - labels) * np.log(1 - probability))


@pytest.fixture(scope="module")
def purchases():
    """Who bought what in a gift shop, and as many pairs that were not bought.

    What was not bought is drawn by popularity, so that counting alone cannot tell.
    """
    log = tr.data.load("online_retail").to_pandas()
    log = log[(log.behavior == "purchase") & log.user.notna()]
    popular = log.item.value_counts().index[:300]
    bought = log[log.item.isin(popular)].drop_duplicates(["user", "item"])
    buyers = bought.user.value_counts().index[:400]
    bought = bought[bought.user.isin(buyers)]
    users = bought.user.map({user: n for n, user in enumerate(buyers)}).to_numpy()
    items = bought.item.map({item: n for n, item in enumerate(popular)}).to_numpy()
    rng = np.random.default_rng(0)
    known = np.zeros((len(buyers), len(popular)), bool)
    known[users, items] = True
    others_u, others_i = rng.permutation(users), rng.permutation(items)
    kept = ~known[others_u, others_i]
    user_data = np.concatenate([users, others_u[kept]])
    item_data = np.concatenate([items, others_i[kept]])
    labels = np.concatenate([np.ones(len(users)), np.zeros(kept.sum())])
    order = rng.permutation(len(labels))
    held_out = len(labels) // 5
    data = [values[order] for values in (user_data, item_data, labels)]
    return [values[held_out:] for values in data], [values[:held_out] for values in data]


def test_a_model_written_after_the_documents_separates_clicks_of_a_real_shop(purchases):
    (user_data, item_data, labels), held_out = purchases
    keras.utils.set_random_seed(0)
    model = Clicks(num_users=400, num_items=300, emb_dim=32, hid_dim=32)
    before = tr.evaluate(model, *held_out, batch_size=4096)
    losses = [tr.train_epoch(model, user_data, item_data, labels, batch_size=64) for _ in range(7)]
    after = tr.evaluate(model, *held_out, batch_size=4096)
    bought = np.bincount(item_data, weights=labels, minlength=300)
    by_popularity = auc(held_out[2], bought[held_out[1]])
    assert losses == sorted(losses, reverse=True)
    assert 0.45 < before.auc < 0.55
    assert after.auc > max(0.62, by_popularity + 0.08)
    assert after < before


@pytest.mark.parametrize("make", [lambda: Clicks(20, 30), functional])
def test_a_probability_never_passes_a_second_sigmoid(make, clicks):
    model = make()
    expected = log_loss(clicks[2], probabilities(model, *clicks[:2]))
    assert tr.evaluate(model, *clicks, batch_size=100) == pytest.approx(expected, rel=1e-5)
    assert tr.train_step(model, *clicks) == pytest.approx(expected, rel=1e-5)
    trained = log_loss(clicks[2], probabilities(model, *clicks[:2]))
    assert trained != pytest.approx(expected, rel=1e-5)
    assert tr.train_step(model, *clicks) == pytest.approx(trained, rel=1e-5)


def test_a_loss_that_expects_logits_is_given_probabilities_all_the_same(clicks):
    model = functional()
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    expected = log_loss(clicks[2], probabilities(model, *clicks[:2]))
    with pytest.warns(UserWarning, match="without a second sigmoid"):
        assert tr.train_step(model, *clicks) == pytest.approx(expected, rel=1e-5)


def test_an_epoch_trains_as_its_steps_do_and_weighs_the_smaller_last_batch(clicks):
    model = functional()
    same = keras.models.clone_model(model)
    same.set_weights(model.get_weights())
    bounds = [(0, 100), (100, 200), (200, 250)]
    steps = [tr.train_step(same, *(values[a:b] for values in clicks)) for a, b in bounds]
    mean = tr.train_epoch(model, *clicks, batch_size=100)
    assert type(mean) is float
    assert mean == pytest.approx((100 * steps[0] + 100 * steps[1] + 50 * steps[2]) / 250, rel=1e-6)
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_mean_of_an_evaluation_does_not_depend_on_the_batches(clicks):
    model = functional()
    whole = tr.evaluate(model, *clicks, batch_size=1000)
    for batch_size in (1, 7, 249):
        cut = tr.evaluate(model, *clicks, batch_size=batch_size)
        assert cut == pytest.approx(whole, rel=1e-5)
        assert (cut.auc, cut.accuracy) == pytest.approx((whole.auc, whole.accuracy))


def test_an_evaluation_is_a_loss_that_carries_auc_and_accuracy(clicks):
    model = functional()
    evaluation = tr.evaluate(model, *clicks, batch_size=100)
    output = probabilities(model, *clicks[:2])
    pairs = output[clicks[2] == 1][:, None] - output[clicks[2] == 0][None, :]
    assert evaluation.auc == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert evaluation.accuracy == np.mean((output > 0.5) == clicks[2])
    assert isinstance(evaluation, float)
    assert f"{evaluation:.3f}" == f"{float(evaluation):.3f}"
    for again in (pickle.loads(pickle.dumps(evaluation)), copy.copy(evaluation)):
        assert (again, again.auc, again.accuracy) == (evaluation, evaluation.auc, again.accuracy)


def test_evaluating_changes_no_weight_no_optimizer_and_no_random_state(clicks):
    model = functional(dropout=0.5)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    tr.train_step(model, *clicks)

    def state():
        kept = [*model.variables, *model.optimizer.variables]
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in kept]

    def draw():
        return random.random(), float(keras.random.uniform(())), float(keras.random.uniform(()))

    keras.utils.set_random_seed(7)
    undisturbed, before = draw(), state()
    keras.utils.set_random_seed(7)
    first = tr.evaluate(model, *clicks, batch_size=64)
    assert tr.evaluate(model, *clicks, batch_size=64) == first
    assert draw() == undisturbed
    for one, other in zip(before, state(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_optimizer_and_loss_that_the_model_was_compiled_with_are_used(clicks):
    model = functional()
    model.compile(keras.optimizers.SGD(0.0), "mean_squared_error")
    weights = model.get_weights()
    squares = np.mean((probabilities(model, *clicks[:2]) - clicks[2]) ** 2)
    assert tr.train_epoch(model, *clicks, batch_size=100) == pytest.approx(squares, rel=1e-5)
    assert tr.evaluate(model, *clicks, batch_size=100) == pytest.approx(squares, rel=1e-5)
    assert int(model.optimizer.iterations) == 3
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
    assert tr.train_step(model, *clicks) > squares
    assert int(model.optimizer.iterations) == 1
    assert not np.array_equal(weights[0], model.get_weights()[0])


def test_a_layer_that_is_frozen_between_steps_stays_as_it_is(clicks):
    model = Clicks(20, 30)
    tr.train_step(model, *clicks)
    model.user_embedding.trainable = False
    kept = model.user_embedding.get_weights()[0]
    others = model.item_embedding.get_weights()[0]
    tr.train_step(model, *clicks)
    np.testing.assert_array_equal(model.user_embedding.get_weights()[0], kept)
    assert not np.array_equal(model.item_embedding.get_weights()[0], others)


def test_the_step_is_traced_once_and_not_run_eagerly(clicks):
    calls = []

    class Counted(Clicks):
        def call(self, user_data, item_data):
            calls.append(1)
            return super().call(user_data, item_data)

    model = Counted(20, 30)
    tr.train_epoch(model, *clicks, batch_size=50)
    traced = len(calls)
    for _ in range(3):
        tr.train_epoch(model, *clicks, batch_size=50)
    assert len(calls) == traced


def test_a_shuffled_epoch_repeats_by_its_seed(clicks):
    model = functional()
    weights = model.get_weights()

    def epoch(**options):
        same = keras.models.clone_model(model)
        same.set_weights(weights)
        return tr.train_epoch(same, *clicks, batch_size=50, **options)

    assert epoch(shuffle=True, seed=3) == epoch(shuffle=True, seed=3)
    assert epoch(shuffle=True, seed=3) != epoch(shuffle=True, seed=4)
    assert epoch() == epoch(seed=5)


def test_users_and_items_may_be_given_by_several_features(clicks):
    class Featured(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding = tr.UserEmbedding(20, 4)
            self.recommendation = tr.Recommendation(5, 8)

        def call(self, user_data, item_data):
            embedded = self.embedding(user_data["id"])
            h_u = keras.ops.concatenate([embedded, user_data["age"]], axis=-1)
            return self.recommendation(h_u, item_data)

    user_data = {"id": clicks[0].tolist(), "age": np.random.default_rng(0).random((250, 1))}
    item_data = np.random.default_rng(1).random((250, 5))
    model = Featured()
    first = tr.train_epoch(model, user_data, item_data, clicks[2], batch_size=100)
    for _ in range(10):
        last = tr.train_epoch(model, user_data, item_data, clicks[2][:, None], batch_size=100)
    assert last < first


def test_a_model_that_was_trained_so_is_saved_and_freed_as_any_other(clicks, tmp_path):
    model = functional()
    tr.train_step(model, *clicks)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        probabilities(again, *clicks[:2]), probabilities(model, *clicks[:2])
    )
    kept = Clicks(20, 30)
    tr.train_step(kept, *clicks)
    left = weakref.ref(kept)
    del kept
    gc.collect()
    assert left() is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_data": [], "item_data": [], "labels": []}, "no labels"),
        ({"user_data": [1]}, "user_data has 1 rows, but there are 3 labels"),
        ({"item_data": [1, 2, 3, 4]}, "item_data has 4 rows"),
        ({"labels": [0, 1]}, "rows, but there are 2 labels"),
        ({"labels": [0, 2, -1]}, "2 of 3 do not, first 2"),
        ({"labels": [0, 1, np.nan]}, "1 of 3 labels are NaN"),
        ({"labels": [[0, 1]] * 3}, "one a pair"),
        ({"user_data": [1.0, np.nan, np.inf]}, "2 values of user_data"),
    ],
)
def test_data_that_cannot_be_used_is_refused_before_a_weight_moves(change, message):
    data = {"user_data": [1, 2, 3], "item_data": [4, 5, 6], "labels": [0, 1, 1]} | change
    model = functional()
    weights = model.get_weights()
    with pytest.raises(DataError, match=message):
        tr.train_step(model, **data)
    for function in (tr.train_epoch, tr.evaluate):
        with pytest.raises(DataError, match=message):
            function(model, **data, batch_size=2)
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("function", [tr.train_epoch, tr.evaluate])
def test_a_batch_size_below_one_is_refused(function, clicks):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        function(functional(), *clicks, batch_size=0)


def test_a_model_whose_output_is_no_probability_is_refused(clicks):
    users, items = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    product = keras.layers.multiply(
        [tr.UserEmbedding(20, 8)(users), tr.ItemEmbedding(30, 8)(items)]
    )
    logits = keras.Model([users, items], keras.layers.Dense(1)(product))
    with pytest.raises(ValueError, match="outputs must be probabilities"):
        tr.train_step(logits, *clicks)
    with pytest.raises(ValueError, match="outputs must be probabilities"):
        tr.evaluate(logits, *clicks, batch_size=100)
    several = keras.Model([users, items], keras.layers.Dense(3, "sigmoid")(product))
    with pytest.raises(ValueError, match=r"one probability a pair.*\(1, 3\)"):
        tr.train_step(several, *clicks)
    with pytest.raises(TypeError, match="must be a Keras model or layer, got function"):
        tr.train_step(lambda user_data, item_data: 0.5, *clicks)
