import keras
import numpy as np
import pytest
from keras import ops
from small_models import click_data, click_model, weights_of

from tfrec_llm import Recommender
from tfrec_llm.data import ShopSimulator
from tfrec_llm.models import BehaviorEncoder
from tfrec_llm.training import add_lora, freeze, merge_lora


def trained(model, *, epochs=1):
    x, y = click_data(16)
    if not model.compiled:
        model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


def probabilities(model):
    return ops.convert_to_numpy(model(click_data(16)[0]))


@pytest.mark.parametrize("block", ["pre_norm", "gated"])
def test_only_the_maps_of_low_rank_are_trained(block):
    model = click_model(block=block)
    before = probabilities(model)
    num_weights = len(model.weights)
    add_lora(model.encoder, rank=3)
    np.testing.assert_array_equal(probabilities(model), before)
    sizes = [(8, 24), (8, 8), (8, 64 if block == "gated" else 32), (32, 8)]
    expected = 2 * sum(3 * (rows + columns) for rows, columns in sizes)
    found = model.encoder.trainable_variables
    assert sum(int(np.prod(variable.shape)) for variable in found) == expected
    assert len(model.weights) == num_weights + 2 * 2 * 4
    held = {v.path: v.numpy().copy() for v in model.encoder.weights if "lora" not in v.path}
    trained(model)
    assert np.abs(probabilities(model) - before).max() > 1e-3
    for variable in model.encoder.weights:
        if variable.path in held:
            np.testing.assert_array_equal(variable.numpy(), held[variable.path])
        elif "kernel_b" in variable.path:
            assert variable.numpy().any()


def test_merged_the_outputs_stay_and_the_encoder_is_an_ordinary_one_on_every_backend():
    model = click_model()
    weights = [weight.path for weight in model.weights]
    x, _ = click_data(16)
    add_lora(model.encoder, rank=2, alpha=5.0)
    trained(model)
    expected = model.predict(x, verbose=0)
    merge_lora(model.encoder)
    np.testing.assert_allclose(probabilities(model), expected, atol=1e-6)
    # What was compiled before the merge is right, too.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    assert [weight.path for weight in model.weights] == weights
    assert len(model.trainable_weights) == len(weights)
    assert model.encoder.get_config() == click_model().encoder.get_config() | {
        "name": model.encoder.name
    }
    before = weights_of(model)
    model.compile("sgd", "binary_crossentropy")
    trained(model)
    moved = [(new != old).any() for new, old in zip(weights_of(model), before, strict=True)]
    assert all(moved)


def test_a_saved_model_comes_back_with_its_maps_and_trains_on_on_every_backend(tmp_path):
    model = click_model()
    add_lora(model.encoder, rank=2)
    trained(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(probabilities(loaded), probabilities(model), atol=1e-6)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    for each in (model, loaded):
        trained(each)
    for found, expected in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    merge_lora(loaded.encoder)
    np.testing.assert_allclose(probabilities(loaded), probabilities(model), atol=1e-6)


def test_weights_saved_without_maps_are_loaded_beside_maps_that_add_nothing(tmp_path):
    plain, model = click_model(), click_model(seed=1)
    plain.save_weights(tmp_path / "plain.weights.h5")
    add_lora(model.encoder, rank=2)
    trained(model)
    model.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_allclose(probabilities(model), probabilities(plain), atol=1e-6)


def test_keras_still_loads_lora_that_cannot_be_trained(tmp_path):
    # When this fails, Projection need not keep LoRA apart any more.
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.layers[0].enable_lora(2)
    model.save(tmp_path / "model.keras")
    dense = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert not dense.lora_kernel_a.numpy().any()
    assert not dense.lora_kernel_b.numpy().any()


def test_half_precision_trains_the_maps_in_float32():
    model = click_model(dtype="mixed_bfloat16")
    add_lora(model.encoder, rank=2)
    assert {variable.dtype for variable in model.encoder.trainable_variables} == {"float32"}
    before = probabilities(model)
    trained(model)
    assert np.abs(probabilities(model) - before).max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_recommender_trains_on_with_its_maps_is_saved_and_merged(tmp_path, precision):
    log = ShopSimulator(num_users=40, num_items=20, seed=0).simulate()
    shop = Recommender(emb_dim=8, num_layers=1, precision=precision)
    shop.fit(log, epochs=1, verbose=0)
    add_lora(shop.model.encoder, rank=2)
    held = np.array(ops.convert_to_numpy(shop.model.table))
    before = shop.score(shop.histories)
    shop.fit(log, warm_start=True, epochs=2, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(shop.model.table), held)
    expected = shop.score(shop.histories)
    assert (expected != before).any()
    shop.save(tmp_path / "shop.tfrec")
    loaded = Recommender.load(tmp_path / "shop.tfrec")
    np.testing.assert_allclose(loaded.score(shop.histories), expected, atol=1e-5)
    merge_lora(loaded.model.encoder)
    np.testing.assert_allclose(loaded.score(shop.histories), expected, atol=1e-5)
    loaded.extend([999])
    np.testing.assert_allclose(loaded.score(shop.histories)[:, :-1], expected, atol=1e-5)


def test_what_cannot_work_is_refused():
    encoder = BehaviorEncoder(20, 8)
    with pytest.raises(ValueError, match="no LoRA to merge"):
        merge_lora(encoder)
    with pytest.raises(ValueError, match="rank must be positive, got 0"):
        add_lora(encoder, rank=0)
    add_lora(encoder)
    with pytest.raises(ValueError, match="has LoRA already"):
        add_lora(encoder)
    with pytest.raises(ValueError, match=r"Call merge_lora\(encoder\) first"):
        freeze(encoder)
