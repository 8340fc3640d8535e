import keras
import numpy as np
import pytest
from small_models import click_data, click_model, weights_of

from tfrec_llm import Recommender
from tfrec_llm.data import ShopSimulator, UserSequences, next_batches
from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel
from tfrec_llm.training import freeze, unfreeze, variable_depths

BLOCK_WEIGHTS = 12


def moved(model, before):
    """Whether each weight changed, by its path within the model."""
    return {
        weight.path.split("small_click_model/")[-1]: bool((new != old).any())
        for weight, new, old in zip(model.weights, weights_of(model), before, strict=True)
    }


@pytest.mark.parametrize("options", [{}, {"block": "post_norm", "num_behaviors": 2}])
@pytest.mark.parametrize("blocks", [None, 0, 1, 2])
def test_what_is_frozen_stays_and_the_rest_is_trained(blocks, options):
    model = click_model(**options)
    x, y = click_data()
    x["behaviors"] = x["segments"]
    freeze(model.encoder, blocks=blocks)
    model.compile(keras.optimizers.SGD(1.0), "binary_crossentropy")
    before = weights_of(model)
    model.fit(x, y, batch_size=8, verbose=0)
    frozen_blocks = 2 if blocks is None else blocks
    for path, has_moved in moved(model, before).items():
        if "block_" in path:
            frozen = int(path.split("block_")[1][0]) < frozen_blocks
        elif "transformer/norm" in path:  # belongs to the highest block
            frozen = frozen_blocks == 2
        else:
            frozen = "head" not in path
        assert has_moved != frozen, path


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="so on TensorFlow alone")
def test_keras_still_passes_over_a_flag_that_is_set_to_what_it_is():
    # When this fails, set_trainable() need not set a flag twice any more.
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.layers[0].trainable = False
    model.trainable = True
    assert not model.trainable_variables


def test_unfreezing_trains_the_whole_encoder_again():
    encoder = BehaviorEncoder(20, 8)
    freeze(encoder, blocks=1)
    assert len(encoder.trainable_variables) < len(encoder.weights)
    unfreeze(encoder)
    assert len(encoder.trainable_variables) == len(encoder.weights)
    assert encoder.tuning == {}


@pytest.mark.parametrize("blocks", [None, 0, 1])
def test_a_saved_model_stays_frozen_and_its_training_goes_on(tmp_path, blocks):
    model = click_model()
    x, y = click_data()
    freeze(model.encoder, blocks=blocks)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(x, y, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for found, expected in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pretraining_goes_on_above_frozen_embeddings():
    sequences = UserSequences(np.arange(3, 19, dtype="int32"), np.array([0, 8, 16]))
    model = NextBehaviorModel(BehaviorEncoder(20, 8, dropout=0.0))
    freeze(model.encoder, blocks=0)
    model.compile("adam")
    before = np.array(model.table)
    model.fit(next_batches(sequences), epochs=2, verbose=0)
    np.testing.assert_array_equal(before, np.array(model.table))


@pytest.mark.parametrize("blocks", [None, 0])
def test_a_recommender_trains_on_with_what_is_frozen_as_it_was(blocks):
    log = ShopSimulator(num_users=40, num_items=20, seed=0).simulate()
    shop = Recommender(emb_dim=8, num_layers=1, precision="mixed_bfloat16", tie_embeddings=False)
    shop.fit(log, epochs=1, verbose=0)
    freeze(shop.model.encoder, blocks=blocks)
    before = weights_of(shop.model.encoder)
    shop.fit(log, warm_start=True, epochs=1, verbose=0)
    moved = [
        (new != old).any() for new, old in zip(weights_of(shop.model.encoder), before, strict=True)
    ]
    assert not moved[0]
    assert any(moved) == (blocks is not None)


def test_depths_count_from_the_head_down_and_name_every_weight():
    for options in ({}, {"block": "post_norm"}, {"position_encoding": "rotary"}):
        encoder = BehaviorEncoder(20, 8, num_layers=3, name="encoder", **options)
        model = NextBehaviorModel(encoder)
        model.build()
        depths = variable_depths(encoder)
        assert len(depths) == len(encoder.weights)
        assert depths["encoder/item_embedding/table"] == 4
        assert depths["encoder/transformer/block_0/feed_forward/expand/kernel"] == 3
        assert depths["encoder/transformer/block_2/attention/project_in/bias"] == 1


def test_more_blocks_than_there_are_cannot_be_frozen():
    with pytest.raises(ValueError, match=r"blocks must lie in 0\.\.2, .* got 3"):
        freeze(BehaviorEncoder(20, 8), blocks=3)
