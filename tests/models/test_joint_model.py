"""Several objectives on one encoder."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrec_llm.data import (
    JointBatches,
    Sessions,
    UserSequences,
    contrastive_batches,
    next_batches,
    next_session_batches,
)
from tfrec_llm.data.batches import padded_batch
from tfrec_llm.losses import CatalogCrossEntropy, ContrastiveLoss
from tfrec_llm.models import (
    BehaviorEncoder,
    ContrastiveModel,
    JointModel,
    NextBehaviorModel,
    NextSessionModel,
)

# One chunk is traced sooner than sixteen.
LOSSES = {"next": CatalogCrossEntropy(num_chunks=1)}
SMALL = {"vocab_size": 20, "emb_dim": 8, "num_layers": 1, "max_length": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, 40)
    offsets = np.append(0, np.cumsum(lengths))
    return UserSequences(rng.integers(3, 20, offsets[-1]).astype("int32"), offsets)


@pytest.fixture
def batches(sequences):
    return JointBatches(
        {
            "next": next_batches(sequences, max_length=8, batch_size=4),
            "contrastive": contrastive_batches(sequences, max_length=8, batch_size=100),
        }
    )


def joint(**options):
    encoder = BehaviorEncoder(**SMALL | options)
    return JointModel(
        {"next": NextBehaviorModel(encoder), "contrastive": ContrastiveModel(encoder)}
    )


def weights(model):
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def test_a_joint_loss_is_the_weighted_sum_of_its_models_losses_on_every_backend(batches):
    model = joint()
    model.compile(
        keras.optimizers.SGD(0.0),
        loss=LOSSES | {"contrastive": ContrastiveLoss(temperature=0.5)},
        loss_weights={"contrastive": 0.25},
    )
    inputs, targets = batches[0]
    logs = model.train_on_batch(inputs, targets, return_dict=True)
    alone = {
        name: float(
            one.test_on_batch(inputs[name], targets[name])
            if name == "next"
            else ContrastiveLoss(temperature=0.5)(targets[name], one(inputs[name]))
        )
        for name, one in model.models.items()
    }
    assert logs["next_loss"] == pytest.approx(alone["next"], rel=1e-5)
    assert logs["contrastive_loss"] == pytest.approx(alone["contrastive"], rel=1e-5)
    assert logs["loss"] == pytest.approx(alone["next"] + 0.25 * alone["contrastive"], rel=1e-5)


def test_training_together_moves_the_shared_encoder_and_every_head(sequences):
    encoder = BehaviorEncoder(**SMALL)
    model = JointModel(
        {
            "next": NextBehaviorModel(encoder, tie_embeddings=False),
            "session": NextSessionModel(encoder),
        }
    )
    model.build()
    before = weights(model)
    visits = Sessions(sequences, np.arange(len(sequences)) // 2)
    model.compile(keras.optimizers.SGD(0.5), loss=LOSSES)
    history = model.fit(
        JointBatches(
            {
                "next": next_batches(sequences, max_length=8, batch_size=4),
                "session": next_session_batches(visits, max_length=8, batch_size=4),
            }
        ),
        epochs=2,
        verbose=0,
    ).history
    assert set(history) == {"loss", "next_loss", "session_loss"}
    assert np.isfinite(history["loss"]).all()
    for weight, old in zip(model.weights, before, strict=True):
        moved = not np.array_equal(ops.convert_to_numpy(weight), old)
        assert moved or not weight.trainable, weight.path


def test_a_weight_of_zero_trains_as_if_the_model_were_not_there(sequences, batches):
    keras.utils.set_random_seed(0)
    model = joint()
    model.build()
    alone = NextBehaviorModel(BehaviorEncoder(**SMALL))
    alone.build()
    alone.set_weights(model.models["next"].get_weights())
    model.compile(keras.optimizers.SGD(0.5), loss=LOSSES, loss_weights={"contrastive": 0.0})
    model.fit(batches, shuffle=False, verbose=0)
    alone.compile(keras.optimizers.SGD(0.5), loss=LOSSES["next"])
    alone.fit(next_batches(sequences, max_length=8, batch_size=4), shuffle=False, verbose=0)
    for one, other in zip(alone.get_weights(), model.models["next"].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_first_model_answers(sequences):
    model = joint()
    model.build()
    histories = padded_batch(sequences, max_length=8)
    alone = model.models["next"]
    found = model.predict(histories, verbose=0)
    assert found.shape == (40, 20)
    np.testing.assert_allclose(found, alone.predict(histories, verbose=0), atol=1e-5)


def test_a_saved_joint_model_shares_its_encoder_and_trains_on(tmp_path, sequences, batches):
    model = joint()
    model.compile(
        "adam",
        loss=LOSSES | {"contrastive": ContrastiveLoss(temperature=0.5)},
        loss_weights={"contrastive": 0.25},
    )
    model.fit(batches, verbose=0)
    model.save(tmp_path / "joint.keras")
    loaded = keras.saving.load_model(tmp_path / "joint.keras")
    assert loaded.models["contrastive"].encoder is loaded.models["next"].encoder
    assert loaded.models["contrastive"].loss.temperature == 0.5
    assert loaded.loss_weights == {"next": 1.0, "contrastive": 0.25}
    assert int(loaded.optimizer.iterations) == len(batches)
    batch = padded_batch(sequences, max_length=8)
    np.testing.assert_allclose(
        loaded.predict(batch, verbose=0), model.predict(batch, verbose=0), atol=1e-6
    )
    inputs, targets = batches[0]
    for one in (model, loaded):
        one.train_on_batch(inputs, targets)
    for one, other in zip(weights(loaded), weights(model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_joint_model_makes_the_round_trip_through_its_config():
    model = joint()
    again = JointModel.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert list(again.models) == ["next", "contrastive"]
    assert again.encoder.causal is True


def test_what_does_not_belong_together_is_told():
    with pytest.raises(ValueError, match="needs models"):
        JointModel({})
    with pytest.raises(ValueError, match=r"\['b'\] have encoders of their own"):
        JointModel(
            {
                "a": NextBehaviorModel(BehaviorEncoder(**SMALL)),
                "b": ContrastiveModel(BehaviorEncoder(**SMALL)),
            }
        )
    model = joint()
    for options in ({"loss": {"nxt": None}}, {"loss_weights": {"nxt": 1.0}}):
        with pytest.raises(ValueError, match=r"no model \['nxt'\], only \['next', 'contrastive'\]"):
            model.compile("adam", **options)
    with pytest.raises(ValueError, match="takes no metrics"):
        model.compile("adam", metrics=["accuracy"])
