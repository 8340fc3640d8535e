import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.data import PairBatches, ShopSimulator, Vocabulary
from tfrec_llm.metrics.click import auc
from tfrec_llm.models import MatrixFactorization, NeuralCollaborativeFiltering

PAIR = (np.array([0, 1, 2, 3, 4, 5]), np.array([6, 5, 4, 3, 2, 1]))
ALL_IDS = (np.arange(7), np.arange(7))


@pytest.mark.parametrize("model_class", [MatrixFactorization, NeuralCollaborativeFiltering])
def test_models_of_pairs_are_sound_keras_models(model_class, tmp_path):
    model = model_class(7, 7, 4)
    expected = ops.convert_to_numpy(model(PAIR))
    assert expected.shape == (6, 1)
    model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy")
    model.fit(ALL_IDS, np.eye(7)[0], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(PAIR, verbose=0), model.predict(PAIR, verbose=0))
    assert type(model).from_config(model.get_config()).get_config() == model.get_config()


def test_matrix_factorization_follows_the_formula():
    model = MatrixFactorization(7, 7, 4)
    model.build()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    tables = model.user_embedding, model.item_embedding, model.user_bias, model.item_bias
    users, items, of_user, of_item = (ops.convert_to_numpy(layer.table) for layer in tables)
    bias = ops.convert_to_numpy(model.bias)
    logit = (users[PAIR[0]] * items[PAIR[1]]).sum(-1, keepdims=True)
    logit += of_user[PAIR[0]] + of_item[PAIR[1]] + bias
    found = ops.convert_to_numpy(model(PAIR))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logit)), atol=1e-5)


def test_l2_keeps_vectors_short():
    lengths = {}
    for l2 in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = MatrixFactorization(7, 7, 4, l2=l2)
        model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
        model.fit(ALL_IDS, np.ones(7), epochs=30, verbose=0)
        lengths[l2] = float(ops.sum(ops.square(model.user_embedding.table)))
    assert lengths[1.0] < 0.5 * lengths[0.0]


@pytest.mark.parametrize("model_class", [MatrixFactorization, NeuralCollaborativeFiltering])
def test_what_users_take_is_learned(model_class):
    log = ShopSimulator(200, 60, seed=1).simulate()
    users, items = Vocabulary.fit(log.user), Vocabulary.fit(log.item)
    batches = PairBatches(log, users, items, negatives=4, batch_size=512)
    model = model_class(users.size, items.size, 8)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(batches, epochs=8, verbose=0)
    batches.set_epoch(99)
    (pairs, labels) = batches[0]
    assert auc(labels, model.predict_on_batch(pairs)[:, 0]) > 0.75


def test_no_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="hid_dims must be one width or more"):
        NeuralCollaborativeFiltering(5, 5, hid_dims=())
