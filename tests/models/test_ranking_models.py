import keras
import numpy as np
import pytest
from keras import ops
from layer_test import run_layer_test

from tfrec_llm.data import FeatureEncoding, RankingBatches, UserSequences
from tfrec_llm.errors import DataError
from tfrec_llm.layers import (
    FeatureEmbedding,
    ItemContents,
    ItemEmbedding,
    PriorCorrection,
    UserEmbedding,
)
from tfrec_llm.models import (
    BehaviorEncoder,
    ClickModel,
    ConversionModel,
    MultiTaskModel,
    NextBehaviorModel,
)
from tfrec_llm.training import freeze_deep, unfreeze_deep

SMALL = {"vocab_size": 20, "emb_dim": 8, "num_layers": 1, "max_length": 8, "dropout": 0.0}
IMPRESSIONS = 120


@pytest.fixture(scope="module")
def shop():
    """Sequences, and impressions of them; a third of the users have no history."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 20)
    offsets = np.append(0, np.cumsum(lengths))
    sequences = UserSequences(
        rng.integers(3, 20, offsets[-1]).astype("int32"),
        offsets,
        times=np.concatenate([np.sort(rng.integers(0, 90, length)) for length in lengths]),
    )
    users = rng.integers(-10, 20, IMPRESSIONS)
    impressions = {
        "users": np.maximum(users, -1),
        "times": rng.integers(10, 100, IMPRESSIONS),
        "candidates": rng.integers(3, 20, IMPRESSIONS),
        "profiles": rng.integers(3, 9, IMPRESSIONS),
    }
    return sequences, impressions


@pytest.fixture(scope="module")
def context():
    encoding = FeatureEncoding.fit({"hour": [1, 9, 17], "device": ["phone", "desk", "phone"]})
    rng = np.random.default_rng(1)
    columns = {
        "hour": rng.integers(0, 24, IMPRESSIONS),
        "device": rng.choice(["phone", "desk"], IMPRESSIONS),
    }
    return encoding, encoding.encode(columns)


def encoder(**options):
    return BehaviorEncoder(**SMALL | options)


def labels(seed=0):
    return (np.random.default_rng(seed).random(IMPRESSIONS) < 0.4).astype("float32")


def likely(found):
    """Labels as probable as a model says, by task where there are several."""
    if isinstance(found, dict):
        click = likely(found["click"])
        return {"click": click, "conversion": click * likely(found["conversion_given_click"])}
    return (np.random.default_rng(0).random(len(found)) < found).astype("float32")


def batches(shop, **options):
    sequences, impressions = shop
    return RankingBatches(sequences, **impressions, max_length=8, **options)


def wide(model, shop):
    """Weights that are wide, so that what should not be seen would show."""
    if not model.built:
        model.build()
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"interest": None, "product": False, "hid_dim": 6},
        {"interest": "mean", "num_crosses": 1},
        {"interest": "attention", "user_embedding": True, "context": True},
        {"interest": None, "context": True, "wide": True, "affinity": True, "base_rate": 0.1},
    ],
    ids=["plain", "mean", "all", "wide"],
)
def test_click_model_is_a_sound_keras_model(options, shop, context):
    encoding, arrays = context
    options = {"encoder": encoder(), **options}
    if "context" in options:
        options["context"] = FeatureEmbedding(encoding.specs, 8)
        options["user_embedding"] = UserEmbedding(9, 8)
    given = {"context": arrays} if "context" in options else {}
    whole = batches(shop, labels=labels(), **given)
    inputs, truth, _ = whole[0]
    run_layer_test(
        ClickModel,
        options,
        inputs,
        output_shape=truth.shape,
        mixed_dtype="float32",
        training_batch=(inputs, truth),
    )


def test_before_training_a_model_says_what_pre_training_says(shop, context):
    encoding, arrays = context
    frozen = encoder()
    options = {"context": FeatureEmbedding(encoding.specs, 8), "affinity": True}
    model = wide(ClickModel(frozen, **options), shop)
    # As it begins: a head that adds nothing, and the affinity as it is.
    head = model.recommendation.probability
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    model.affinity_layer.weight.assign([1.0])
    model.affinity_layer.shift.assign([0.0])
    data = batches(shop, context=arrays)
    found = model.predict(data)
    found = np.log(found) - np.log1p(-found)
    batch = data[0]
    states = np.asarray(frozen(batch))
    table = np.asarray(frozen.item_embedding(np.arange(3, frozen.vocab_size)))
    for row in range(0, len(found), 7):
        places = np.argwhere(data.impressions(0) == row)[0]
        scores = np.exp(table @ states[places[0], batch["target_positions"][tuple(places)]])
        lift = scores / scores.mean()
        candidate = batch["candidates"][tuple(places)]
        known = batch["history_lengths"][tuple(places)] > 0
        expected = np.log(max(lift[candidate - 3], 1e-4)) if known else 0.0
        assert found[row] == pytest.approx(expected, abs=1e-3)


def test_the_wide_way_is_a_linear_model_beside_the_head(shop):
    # Labels follow a number of the context; the head is silenced.
    number = np.random.default_rng(0).normal(size=IMPRESSIONS)
    encoding = FeatureEncoding.fit({"number": number})
    arrays = encoding.encode({"number": number})
    truth = (number > 0).astype("float32")
    model = ClickModel(encoder(), context=FeatureEmbedding(encoding.specs, 8), wide=True)
    freeze_deep(model)
    model.compile(keras.optimizers.Adam(0.1))
    model.fit(batches(shop, labels=truth, context=arrays), epochs=20, verbose=0)
    found = model.predict(batches(shop, context=arrays))
    logits = np.log(found) - np.log1p(-found)
    read = arrays["number"][:, 0]
    slope, shift = np.polyfit(read, logits, 1)
    assert slope > 1.0
    np.testing.assert_allclose(logits, slope * read + shift, atol=1e-4)
    # Then all of it is trained, from there on.
    before = [np.array(weight) for weight in model.weights]
    unfreeze_deep(model)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(batches(shop, labels=truth, context=arrays), epochs=2, verbose=0)
    moved = [not np.array_equal(*pair) for pair in zip(before, model.weights, strict=True)]
    assert np.mean(moved) > 0.9
    with pytest.raises(ValueError, match="Nothing leads straight"):
        freeze_deep(ClickModel(encoder()))


@pytest.mark.parametrize("model_class", [ConversionModel, MultiTaskModel])
def test_several_tasks_have_straight_ways_of_their_own(model_class, shop, context, tmp_path):
    encoding, arrays = context
    options = {"context": FeatureEmbedding(encoding.specs, 8), "wide": True, "affinity": True}
    click, given_click = labels(0), labels(1)
    both = {"click": click, "conversion": click * given_click}
    data = batches(shop, labels=both, context=arrays, batch_size=50)
    model = model_class(encoder(), **options)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(data, epochs=2, verbose=0)
    assert len(set(np.asarray(model.affinity_layer.weight).tolist())) == 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for task, found in model.predict(data).items():
        np.testing.assert_allclose(loaded.predict(data)[task], found, rtol=1e-5)


def test_an_untrained_model_gives_the_base_rate(shop):
    data = batches(shop)
    for rate in (0.02, 0.7):
        found = ClickModel(encoder(), base_rate=rate, affinity=True)
        found.build()
        found.affinity_layer.weight.assign([0.0])
        np.testing.assert_allclose(found.predict(data), rate, rtol=1e-5)
    rates = {"click": 0.2, "conversion_given_click": 0.1}
    found = ConversionModel(encoder(), base_rate=rates)
    found.build()
    assert found.predict(data)["conversion"].mean() == pytest.approx(0.02, rel=0.5)
    with pytest.raises(ValueError, match="base_rate must lie"):
        ClickModel(encoder(), base_rate=0.0).build()


def test_a_straight_way_needs_a_context():
    with pytest.raises(ValueError, match="needs a context"):
        ClickModel(encoder(), wide=True)


@pytest.mark.parametrize("model_class", [ConversionModel, MultiTaskModel])
def test_models_of_several_tasks_train_save_and_load(model_class, shop, tmp_path):
    click, given_click = labels(0), labels(1)
    both = {"click": click, "conversion": click * given_click}
    data = batches(shop, labels=both, batch_size=50)
    model = model_class(encoder())
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit(data, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found, again = model.predict(data), loaded.predict(data)
    assert found.keys() == again.keys() >= both.keys()
    for task in found:
        np.testing.assert_allclose(again[task], found[task], atol=1e-6)
    assert loaded.fit(data, verbose=0).history["loss"][0] < losses[0]


def test_a_conversion_is_a_click_times_what_follows_it(shop):
    keras.utils.set_random_seed(0)  # wide weights may make a conversion certain in float32
    model = wide(ConversionModel(encoder()), shop)
    found = model.predict(batches(shop))
    expected = found["click"] * found["conversion_given_click"]
    np.testing.assert_allclose(found["conversion"], expected, rtol=1e-6)
    assert (found["conversion"] < found["click"]).all()


def test_predict_gives_each_impression_its_own_in_their_order(shop):
    sequences, impressions = shop
    model = wide(ClickModel(encoder()), shop)
    found = model.predict(batches(shop, batch_size=16))
    for one in range(0, IMPRESSIONS, 7):
        alone = {name: values[[one]] for name, values in impressions.items()}
        again = model.predict(RankingBatches(sequences, **alone, max_length=8))
        np.testing.assert_allclose(again[0], found[one], atol=1e-6)


@pytest.mark.parametrize("position_encoding", ["rotary", "none"])
def test_sharing_a_history_changes_no_probability_of_a_causal_encoder(position_encoding, shop):
    model = wide(ClickModel(encoder(position_encoding=position_encoding)), shop)
    alone = model.predict(batches(shop))
    np.testing.assert_allclose(model.predict(batches(shop, histories="shared")), alone, atol=1e-5)


def test_an_encoder_that_looks_both_ways_never_sees_what_comes_later(shop):
    model = ClickModel(encoder(causal=False))
    model.compile()
    shared = batches(shop, labels=labels(), histories="shared")
    for run in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match='histories="masked"'):
            run(shared)
    model.fit(batches(shop, labels=labels(), histories="masked"), verbose=0)
    causal = ClickModel(encoder())
    with pytest.raises(ValueError, match="not trained to fill masks"):
        causal.predict(batches(shop, histories="masked"))


def test_what_comes_at_or_after_the_impression_changes_nothing(shop):
    sequences, impressions = shop
    model = wide(ClickModel(encoder()), shop)
    before = model.predict(batches(shop, histories="shared"))
    for one in range(0, IMPRESSIONS, 11):
        user, time = impressions["users"][one], impressions["times"][one]
        later = sequences.times >= time
        owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
        items = np.where(later & (owner == user), 3 + (sequences.items + 5) % 17, sequences.items)
        changed = UserSequences(items.astype("int32"), sequences.offsets, times=sequences.times)
        again = model.predict(batches((changed, impressions), histories="shared"))
        np.testing.assert_allclose(again[one], before[one], atol=1e-6)


def test_padding_targets_count_neither_in_loss_nor_in_metrics(shop):
    model = wide(ClickModel(encoder()), shop)
    truth = labels()
    model.compile(weighted_metrics=["binary_accuracy"])
    measured = model.evaluate(batches(shop, labels=truth, batch_size=1000), return_dict=True)
    found = model.predict(batches(shop)).astype("float64")
    loss = -np.mean(truth * np.log(found) + (1 - truth) * np.log(1 - found))
    np.testing.assert_allclose(measured["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(measured["binary_accuracy"], np.mean((found > 0.5) == truth))


def test_a_pre_trained_encoder_is_taken_up_as_it_is(shop):
    shared = encoder()
    NextBehaviorModel(shared).build()
    weights = [ops.convert_to_numpy(weight) for weight in shared.weights]
    model = ClickModel(shared)
    model.build()
    for weight, old in zip(model.encoder.weights, weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), old)


def test_candidates_may_have_vectors_of_their_own(shop):
    sequences, impressions = shop
    model = ClickModel(encoder(), candidate_embedding=ItemEmbedding(40, 8))
    model.build()
    assert model.item_layer.vocab_size == 40
    other = impressions | {"candidates": impressions["candidates"] + 20}
    found = model.predict(RankingBatches(sequences, **other))
    assert ((found > 0) & (found < 1)).all()


def test_campaigns_are_judged_by_the_items_they_are_about(shop, tmp_path):
    sequences, impressions = shop
    contents = ItemContents(4, 20, candidates=[0, 0, 1, 3], items=[3, 4, 5, 9])
    model = ClickModel(encoder(), candidate_embedding=ItemEmbedding(4, 8), contents=contents)
    campaigns = impressions | {"candidates": impressions["candidates"] % 4}
    data = RankingBatches(sequences, **campaigns, labels=labels())
    model.compile()
    model.fit(data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(data), model.predict(data), atol=1e-6)
    inputs, _, _ = data[0]
    vectors = ops.convert_to_numpy(model.encoder.item_embedding.table)
    about = ops.convert_to_numpy(
        model.contents(np.array([0, 2]), item_embedding=model.encoder.item_embedding)
    )
    np.testing.assert_allclose(about, [(vectors[3] + vectors[4]) / 2, 0 * vectors[0]], atol=1e-6)
    _, counts = model.interest_in(np.zeros((*inputs["candidates"].shape, 8), "float32"), inputs)
    held = {0: {3, 4}, 1: {5}, 2: set(), 3: {9}}
    asked = data.impressions(0)
    for row, target in zip(*np.nonzero(asked >= 0), strict=True):
        read = inputs["history_lengths"][row, target]
        end = inputs["target_positions"][row, target] + 1
        items = inputs["items"][row, end - read : end]
        own = sum(int(item) in held[int(inputs["candidates"][row, target])] for item in items)
        np.testing.assert_allclose(counts[row, target], np.log1p([read, own]), atol=1e-6)


def test_clicks_that_follow_from_history_and_candidate_are_learned():
    """Who has looked at an item of a kind clicks those of that kind and no others."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 200)
    offsets = np.arange(0, 801, 4)
    items = (3 + np.repeat(kind, 4) * 8 + rng.integers(0, 8, 800)).astype("int32")
    sequences = UserSequences(items, offsets, times=np.zeros(800, np.int64))
    users = np.repeat(np.arange(200), 4)
    shown = rng.integers(0, 2, 800)
    data = RankingBatches(
        sequences,
        users=users,
        times=np.ones(800, np.int64),
        candidates=3 + shown * 8 + rng.integers(0, 8, 800),
        labels=shown == kind[users],
        batch_size=128,
        shuffle=True,
    )
    model = ClickModel(encoder())
    model.compile(keras.optimizers.Adam(0.01), weighted_metrics=["auc"])
    model.fit(data, epochs=12, verbose=0)
    assert model.evaluate(data, return_dict=True)["auc"] > 0.99


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow loads it again")
@pytest.mark.parametrize("model_class", [ClickModel, ConversionModel])
def test_exported_models_give_the_probabilities_of_predict(model_class, shop, context, tmp_path):
    import tensorflow as tf

    sequences, impressions = shop
    kinds = np.random.default_rng(0).integers(0, 3, len(sequences.items)).astype("int32")
    sequences = UserSequences(
        sequences.items, sequences.offsets, times=sequences.times, behaviors=kinds
    )
    encoding, arrays = context
    model = model_class(
        encoder(num_behaviors=2),
        context=FeatureEmbedding(encoding.specs, 8),
        user_embedding=UserEmbedding(9, 8),
    )
    wide(model, shop)
    raw = model.predict(batches((sequences, impressions), context=arrays))
    data = batches((sequences, impressions), labels=likely(raw), context=arrays, batch_size=50)
    model.calibrate(data)
    model.export(tmp_path / "clicks", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "clicks"))
    found = model.predict(data)
    for index in range(len(data)):
        asked = data.impressions(index)
        output = served.serve({name: tf.constant(v) for name, v in data[index][0].items()})
        for task, values in (output if isinstance(output, dict) else {"": output}).items():
            expected = (found[task] if task else found)[asked[asked >= 0]]
            np.testing.assert_allclose(values.numpy()[asked >= 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_makes_probabilities_as_high_as_clicks_are_frequent(method, shop, tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = wide(ClickModel(encoder()), shop)
    model.compile(keras.optimizers.Adam(0.01))
    raw = model.predict(batches(shop))
    rare = (rng.random(IMPRESSIONS) < 0.4 * raw**2).astype("float32")
    data = batches(shop, labels=rare)
    found = model.calibrate(data, method=method).predict(data)
    assert abs(found.mean() - rare.mean()) < 0.01 < abs(raw.mean() - rare.mean())
    assert (np.diff(found[np.argsort(raw)]) >= -1e-6).all()
    np.testing.assert_allclose(model.evaluate(data), log_loss(rare, found), rtol=1e-4)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(data), found, atol=1e-6)
    # Calibrating again starts from what the weights themselves give.
    again = loaded.calibrate(data, method=method)
    np.testing.assert_allclose(again.predict(data), found, atol=1e-5)
    again.set_calibration(None)
    np.testing.assert_allclose(again.predict(data), raw, atol=1e-6)


def log_loss(truth, probabilities):
    p = probabilities.astype("float64")
    return -np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p))


def test_training_leaves_the_calibration_out(shop):
    data = batches(shop, labels=labels())
    model = wide(ClickModel(encoder()), shop)
    weights = model.get_weights()
    found = []
    for calibration in (None, PriorCorrection(0.2)):
        model.set_weights(weights)
        model.set_calibration(calibration)
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(data, epochs=2, verbose=0)
        found.append(model.predict(data))
    assert not np.allclose(*found)
    np.testing.assert_allclose(PriorCorrection(0.2)(found[0]), found[1], atol=1e-5)


def test_calibrated_conversions_still_need_their_clicks(shop):
    model = wide(ConversionModel(encoder()), shop)
    truth = likely(model.predict(batches(shop)))
    found = model.calibrate(batches(shop, labels=truth)).predict(batches(shop))
    assert (found["conversion"] <= found["click"]).all()
    np.testing.assert_allclose(
        found["click"] * found["conversion_given_click"], found["conversion"], rtol=1e-5
    )


def test_calibration_says_what_it_cannot_use(shop):
    model = wide(ClickModel(encoder()), shop)
    with pytest.raises(ValueError, match="no labels"):
        model.calibrate(batches(shop))
    with pytest.raises(ValueError, match="method must be one of"):
        model.calibrate(batches(shop, labels=labels()), method="much")
    with pytest.raises(DataError, match="All 120 labels are 0"):
        model.calibrate(batches(shop, labels=0 * labels()))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"interest must be one of .*'much'"):
        ClickModel(encoder(), interest="much")
    with pytest.raises(ValueError, match=r"tasks must be names"):
        MultiTaskModel(encoder(), tasks=("click", "click"))
