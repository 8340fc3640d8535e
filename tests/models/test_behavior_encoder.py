import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.models import BehaviorEncoder

HISTORIES = [[3, 4], [5, 6, 7, 3, 9], [8, 8, 4], [10]]


def packed(histories, length):
    """All histories in one row, one segment each, padding behind them."""
    batch = {name: np.zeros((1, length), "int32") for name in ("items", "segments", "positions")}
    start = 0
    for segment, history in enumerate(histories, 1):
        places = slice(start, start + len(history))
        batch["items"][0, places] = history
        batch["segments"][0, places] = segment
        batch["positions"][0, places] = np.arange(len(history))[::-1]
        start += len(history)
    return batch


def encoder(**options):
    # A wide initialisation, so that what should not be seen would show.
    encoder = BehaviorEncoder(12, emb_dim=8, **{"num_layers": 2, "max_length": 6} | options)
    encoder.build()
    rng = np.random.default_rng(0)
    encoder.set_weights(
        [weight + rng.normal(0, 0.3, weight.shape) for weight in encoder.get_weights()]
    )
    return encoder


def hidden(encoder, batch):
    return ops.convert_to_numpy(encoder(batch))


every_encoder = pytest.mark.parametrize(
    "options",
    [
        {"position_encoding": encoding, "causal": causal, "block": block}
        for encoding in ("learned", "rotary", "none")
        for causal, block in ((True, "pre_norm"), (False, "gated"))
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)


def test_behavior_encoder_is_a_sound_keras_model():
    options = {"vocab_size": 12, "emb_dim": 8, "num_layers": 1, "max_length": 6, "dropout": 0.0}
    run_layer_test(BehaviorEncoder, options, packed(HISTORIES, 12), output_shape=(1, 12, 8))


def test_behavior_encoder_with_behavior_types_is_a_sound_keras_model():
    options = {"vocab_size": 12, "emb_dim": 8, "num_layers": 1, "dropout": 0.0, "causal": True}
    batch = packed(HISTORIES, 12)
    batch["behaviors"] = batch["segments"] % 3
    run_layer_test(BehaviorEncoder, options | {"num_behaviors": 2}, batch, output_shape=(1, 12, 8))


@every_encoder
def test_packed_users_do_not_see_each_other(options):
    model = encoder(**options)
    together = hidden(model, packed(HISTORIES, 16))[0]
    start = 0
    for history in HISTORIES:
        alone = hidden(model, packed([history], max(2, len(history))))[0, : len(history)]
        np.testing.assert_allclose(together[start : start + len(history)], alone, atol=1e-5)
        start += len(history)


@every_encoder
def test_the_same_history_gives_the_same_states_wherever_padding_stands(options):
    model = encoder(**options)
    history = HISTORIES[1]
    right = packed([history], 9)
    left = {name: np.roll(values, 4, axis=1) for name, values in right.items()}
    np.testing.assert_allclose(hidden(model, right)[0, :5], hidden(model, left)[0, 4:], atol=1e-5)


@every_encoder
def test_only_a_causal_encoder_is_blind_to_what_comes_later(options):
    model = encoder(**options)
    seen = packed([[3, 4, 5, 6]], 4)
    changed = {**seen, "items": np.array([[3, 4, 9, 10]], "int32")}
    before, after = hidden(model, seen)[0], hidden(model, changed)[0]
    assert np.abs(before[2:] - after[2:]).max() > 0.01
    if options["causal"]:
        np.testing.assert_allclose(before[:2], after[:2], atol=1e-6)
    else:
        assert np.abs(before[:2] - after[:2]).max() > 0.01


def test_behavior_types_change_what_is_encoded_and_are_asked_for():
    model = encoder(num_behaviors=2)
    batch = packed([[3, 4, 5]], 3)
    views = hidden(model, {**batch, "behaviors": np.array([[1, 1, 1]], "int32")})
    buys = hidden(model, {**batch, "behaviors": np.array([[1, 1, 2]], "int32")})
    assert np.abs(views - buys).max() > 0.01
    with pytest.raises(ValueError, match=r"the batch has no 'behaviors'. It has \['items'"):
        model(batch)
