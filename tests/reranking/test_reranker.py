import keras
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from tfrec_llm.baselines import Popularity, SequentialRules
from tfrec_llm.data import (
    BehaviorLog,
    Catalogue,
    FeatureEncoding,
    RankingBatches,
    ShopSimulator,
    UserSequences,
    Vocabulary,
)
from tfrec_llm.errors import DataError, MissingColumnError
from tfrec_llm.evaluation import Blend, ModelScorer
from tfrec_llm.layers import FeatureEmbedding, ItemEmbedding, UserEmbedding
from tfrec_llm.metrics import intra_list_diversity
from tfrec_llm.models import BehaviorEncoder, ClickModel, ConversionModel, NextBehaviorModel
from tfrec_llm.reranking import Reranker

SHOP = ShopSimulator(num_users=40, num_items=30, mean_length=6, num_categories=4, seed=1)
LOG = SHOP.simulate()
POPULAR = Popularity().fit(LOG)
VOCABULARY = POPULAR.vocabulary
USERS = POPULAR.histories.user_ids[:9]
PRICES = dict(
    zip(LOG.catalogue.ids.to_pylist(), LOG.catalogue.column("price").to_pylist(), strict=True)
)
CATEGORIES = dict(
    zip(LOG.catalogue.ids.to_pylist(), LOG.catalogue.column("category").to_pylist(), strict=True)
)


def encoder(**options):
    sizes = {"vocab_size": VOCABULARY.size, "emb_dim": 8, "num_layers": 1, "max_length": 8}
    return BehaviorEncoder(**sizes | {"dropout": 0.0} | options)


def wide(model, seed=0):
    """Gives a model weights by which probabilities differ much."""
    model.build()
    rng = np.random.default_rng(seed)
    model.set_weights([w + rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def clicks():
    return wide(ClickModel(encoder()))


def probabilities(model, sequences, **inputs):
    """Of all items for every user, float `[users, items]`, by batches made by hand."""
    timed = UserSequences(
        sequences.items,
        sequences.offsets,
        behaviors=sequences.behaviors if model.encoder.num_behaviors else None,
        times=np.zeros(len(sequences.items), np.int64),
    )
    n, items = len(sequences), len(VOCABULARY)
    found = model.predict(
        RankingBatches(
            timed,
            users=np.repeat(np.arange(n), items),
            times=np.ones(n * items),
            max_length=8,
            **{"candidates": np.tile(np.arange(3, VOCABULARY.size), n)} | inputs,
        )
    )
    if isinstance(found, dict):
        return {task: values.reshape(n, items) for task, values in found.items()}
    return found.reshape(n, items)


def expected(scores, sequences, k, first_stage=None):
    """The best unseen items of every user by scores `[users, items]`, in plain loops."""
    frames = []
    for user, row in enumerate(scores):
        seen = set(sequences[user].tolist())
        allowed = [i for i in range(len(row)) if i + 3 not in seen]
        if first_stage is not None:
            allowed = [i for i in first_stage[user] if i in allowed]
        best = sorted(allowed, key=lambda i: -row[i])[:k]
        frames += [(user, VOCABULARY.ids[i].as_py(), row[i]) for i in best]
    return pd.DataFrame(frames, columns=["user", "item", "score"])


def check(found, plain):
    assert found["item"].to_list() == plain["item"].to_list()
    np.testing.assert_allclose(found["score"], plain["score"], atol=1e-6)


def test_candidates_are_ranked_by_what_the_model_predicts(clicks):
    found = POPULAR.recommend(USERS, k=5, reranker=Reranker(clicks))
    sequences = POPULAR.histories.select(USERS)
    check(found, expected(probabilities(clicks, sequences), sequences, 5))
    assert found["rank"].to_list() == [1, 2, 3, 4, 5] * 9
    # In parts, it is the same.
    parts = Reranker(clicks, batch_size=7)
    again = POPULAR.recommend(USERS, k=5, reranker=parts, batch_size=4)
    assert again["item"].to_list() == found["item"].to_list()
    np.testing.assert_allclose(again["score"], found["score"], atol=1e-6)


def test_only_the_best_of_the_first_stage_are_candidates(clicks):
    few = POPULAR.recommend(USERS, k=8)
    found = POPULAR.recommend(USERS, k=3, reranker=Reranker(clicks, num_candidates=8))
    for user, items in found.groupby("user")["item"]:
        assert set(items) <= set(few[few["user"] == user]["item"])
    # A list is never shorter for a small number of candidates.
    found = POPULAR.recommend(USERS, k=8, reranker=Reranker(clicks, num_candidates=1))
    assert sorted(found["item"]) == sorted(few["item"])


def test_new_users_are_ranked_too_and_may_have_done_nothing(clicks):
    histories = [[7, 8], [], [7]]
    found = POPULAR.recommend(histories=histories, k=4, reranker=Reranker(clicks))
    sequences = UserSequences.from_histories(histories, VOCABULARY)
    check(found, expected(probabilities(clicks, sequences), sequences, 4))


@pytest.mark.parametrize("kind", ["rules", "model", "blend"])
def test_every_scorer_can_be_ranked_anew(kind, clicks):
    rules = SequentialRules().fit(LOG, vocabulary=VOCABULARY)
    model = wide(NextBehaviorModel(encoder()))
    scorer = {
        "rules": rules,
        "model": ModelScorer(model, VOCABULARY, histories=rules.histories, catalogue=LOG.catalogue),
        "blend": Blend({"rules": rules, "popular": POPULAR}, weights={"rules": 1, "popular": 1}),
    }[kind]
    found = scorer.recommend(USERS, k=4, reranker=Reranker(clicks, quotas={"category": 1}))
    assert found.groupby("user").size().to_list() == [4] * 9
    assert found["item"].map(CATEGORIES).groupby(found["user"]).nunique().to_list() == [4] * 9


def test_expected_value_is_probability_times_value(clicks):
    sequences = POPULAR.histories.select(USERS)
    prices = np.array([PRICES[item] for item in VOCABULARY.ids.to_pylist()], np.float32)
    found = POPULAR.recommend(USERS, k=5, reranker=Reranker(clicks, value="price"))
    check(found, expected(probabilities(clicks, sequences) * prices, sequences, 5))
    plain = POPULAR.recommend(USERS, k=5, reranker=Reranker(clicks))
    assert found["item"].to_list() != plain["item"].to_list()
    worth = [frame["item"].map(PRICES).mean() for frame in (found, plain)]
    assert worth[0] > worth[1]


def test_the_task_says_which_probability():
    model = wide(ConversionModel(encoder()))
    sequences = POPULAR.histories.select(USERS)
    of_task = probabilities(model, sequences)
    for task in ("click", "conversion"):
        found = POPULAR.recommend(USERS, k=5, reranker=Reranker(model, task=task))
        check(found, expected(of_task[task], sequences, 5))
    with pytest.raises(ValueError, match=r"'click', 'conversion'.*task=, got None"):
        Reranker(model)
    with pytest.raises(ValueError, match=r"'click', 'conversion'.*got 'cart'"):
        Reranker(model, task="cart")


def test_profiles_context_and_candidates_reach_the_model():
    known = Vocabulary(USERS.to_pylist()[:5])
    hours = FeatureEncoding.fit({"hour": [8, 20, 20], "device": ["app", "web", "app"]})
    listed = Vocabulary(VOCABULARY.ids[::-1])
    model = wide(
        ClickModel(
            encoder(),
            candidate_embedding=ItemEmbedding(listed.size, 8),
            user_embedding=UserEmbedding(known.size, 8),
            context=FeatureEmbedding(hours.specs, 8),
        )
    )
    reranker = Reranker(
        model, candidates=listed, profiles=known, context=hours, moment={"device": "web"}
    )
    sequences, items = POPULAR.histories.select(USERS), len(VOCABULARY)

    def by_hand(hour, profiles, of):
        moment = hours.encode({"hour": [hour], "device": ["web"]})
        return probabilities(
            model,
            of,
            profiles=np.repeat(profiles, items),
            candidates=np.tile(listed.encode(VOCABULARY.ids), len(of)),
            context={
                name: np.repeat(values, len(of) * items, 0) for name, values in moment.items()
            },
        )

    profiles = known.encode(USERS, on_unknown="unknown")
    for hour in (8, 20):
        found = POPULAR.recommend(USERS, k=5, reranker=reranker.at(hour=hour))
        check(found, expected(by_hand(hour, profiles, sequences), sequences, 5))
    # The same behaviours without a name have the unknown profile.
    new = UserSequences(sequences.items, sequences.offsets, behaviors=sequences.behaviors)
    found = POPULAR.recommend(histories=new, k=5, reranker=reranker.at(hour=8))
    check(found, expected(by_hand(8, np.full(9, 2), new), new, 5))

    with pytest.raises(ValueError, match=r"reads 'hour' of the moment.*at\(hour="):
        POPULAR.recommend(USERS, reranker=reranker)
    with pytest.raises(ValueError, match="moment names 'our'"):
        reranker.at(our=8)
    missing = {
        "profiles": {"candidates": listed, "context": hours},
        "context": {"candidates": listed, "profiles": known},
    }
    for name, options in missing.items():
        with pytest.raises(ValueError, match=f"pass {name}="):
            Reranker(model, **options)
    with pytest.raises(ValueError, match="user_embedding has 8 rows"):
        Reranker(model, candidates=listed, profiles=Vocabulary([1, 2]), context=hours)
    other = FeatureEncoding.fit({"hour": [8, 9], "device": ["app", "app"]})
    with pytest.raises(ValueError, match="that it was trained with"):
        Reranker(model, candidates=listed, profiles=known, context=other)


@pytest.mark.parametrize("causal", [True, False])
def test_kinds_of_behaviour_are_read_and_may_be_unknown(causal):
    kinds = LOG.table.append_column("behavior", [["view", "buy"] * (len(LOG) // 2)])
    popular = Popularity().fit(BehaviorLog(kinds, catalogue=LOG.catalogue), vocabulary=VOCABULARY)
    model = wide(ClickModel(encoder(num_behaviors=2, causal=causal)))
    sequences = popular.histories.select(USERS)
    how = "own" if causal else "masked"
    reranker = Reranker(model)
    found = popular.recommend(USERS, k=5, reranker=reranker)
    check(found, expected(probabilities(model, sequences, histories=how), sequences, 5))
    raw = [VOCABULARY.decode(sequences[0]).tolist()]
    found = popular.recommend(histories=raw, k=5, reranker=reranker)
    unknown = UserSequences(
        sequences[0], np.array([0, len(sequences[0])]), behaviors=np.zeros_like(sequences[0])
    )
    check(found, expected(probabilities(model, unknown, histories=how), unknown, 5))
    fewer = wide(ClickModel(encoder(num_behaviors=1)))
    with pytest.raises(ValueError, match="2 kinds of behaviour and the model reads 1"):
        popular.recommend(USERS, reranker=Reranker(fewer))


def test_a_saved_model_gives_the_same_lists(clicks, tmp_path):
    clicks.save(tmp_path / "clicks.keras")
    loaded = keras.saving.load_model(tmp_path / "clicks.keras")
    options = {"value": "price", "quotas": {"category": 2}, "diversity": 0.3}
    options["diversity_by"] = "category"
    lists = [
        POPULAR.recommend(USERS, k=5, reranker=Reranker(model, **options))
        for model in (clicks, loaded)
    ]
    pd.testing.assert_frame_equal(*lists)


def test_without_rules_and_model_the_first_stage_stays_as_it_is():
    plain = POPULAR.recommend(USERS, k=5)
    pd.testing.assert_frame_equal(POPULAR.recommend(USERS, k=5, reranker=Reranker()), plain)
    same = Reranker(diversity_by="category", diversity=0.0, num_candidates=9)
    pd.testing.assert_frame_equal(POPULAR.recommend(USERS, k=5, reranker=same), plain)


def test_quotas_hold_and_may_leave_a_list_short():
    everything = POPULAR.recommend(USERS, k=30)
    found = POPULAR.recommend(USERS, k=5, reranker=Reranker(quotas={"category": 2}))
    for user, frame in everything.groupby("user"):
        listed, used = [], {}
        for item in frame["item"]:
            kind = CATEGORIES[item]
            if used.get(kind, 0) < 2 and len(listed) < 5:
                listed.append(item)
                used[kind] = used.get(kind, 0) + 1
        assert found[found["user"] == user]["item"].to_list() == listed
    short = POPULAR.recommend(USERS, k=9, reranker=Reranker(quotas={"category": 1}))
    assert short.groupby("user").size().to_list() == [4] * 9
    # Items that the catalogue does not hold are not limited.
    some = Catalogue(LOG.catalogue.table.filter(pc.field("category") == "category 1"))
    popular = Popularity().fit(BehaviorLog(LOG.table, catalogue=some))
    found = popular.recommend(USERS, k=25, reranker=Reranker(quotas={"category": 1}))
    counts = found["item"].map(lambda item: item in some).groupby(found["user"]).sum()
    assert (counts <= 1).all()
    assert (found.groupby("user").size() > 9).all()


@pytest.mark.parametrize("by", ["category", None])
def test_diversity_tells_items_apart_by_a_column_or_by_vectors(by):
    model = wide(NextBehaviorModel(encoder()))
    scorer = ModelScorer(model, VOCABULARY, histories=POPULAR.histories, catalogue=LOG.catalogue)
    if by is None:
        features = scorer.vectors_of(np.arange(len(VOCABULARY)))
        np.testing.assert_allclose(features, keras.ops.convert_to_numpy(model.item_vectors)[3:])
    else:
        features = scorer._categories(by)
    found = []
    for diversity in (0.0, 0.4, 0.8):
        reranker = Reranker(diversity=diversity, diversity_by=by)
        frame = scorer.recommend(USERS, k=4, reranker=reranker)
        lists = VOCABULARY.encode(frame["item"].to_list()).reshape(9, 4) - 3
        found.append(intra_list_diversity(lists, features).mean())
    assert found[0] < found[1] <= found[2]


def test_a_blend_takes_the_vectors_of_the_scorer_that_has_them():
    model = ModelScorer(wide(NextBehaviorModel(encoder())), VOCABULARY, histories=POPULAR.histories)
    blend = Blend({"popular": POPULAR, "model": model}, weights={"popular": 1, "model": 1})
    items = np.array([4, 0])
    np.testing.assert_array_equal(blend.vectors_of(items), model.vectors_of(items))
    assert len(blend.recommend(USERS, k=3, reranker=Reranker(diversity=0.5))) == 27


def test_users_with_nothing_left_get_no_list(clicks):
    everything = VOCABULARY.ids.to_pylist()
    reranker = Reranker(clicks, quotas={"category": 1}, diversity=0.5, diversity_by="category")
    found = POPULAR.recommend(histories=[everything, [7]], k=2, reranker=reranker)
    assert found["user"].to_list() == [1, 1]
    assert len(POPULAR.recommend(histories=[everything], k=2, reranker=reranker)) == 0
    assert len(POPULAR.recommend(histories=[], k=2, reranker=reranker)) == 0


def test_values_are_needed_of_what_may_be_recommended_alone(clicks):
    table = LOG.catalogue.to_pandas()
    table.loc[table["item"] == 7, "price"] = np.nan
    table.loc[table["item"] == 8, "price"] = -1.0
    popular = Popularity().fit(
        BehaviorLog(LOG.table, catalogue=Catalogue.from_pandas(table)), vocabulary=VOCABULARY
    )
    reranker = Reranker(clicks, value="price")
    with pytest.raises(DataError, match=r"1 of \d+ items have no value in 'price', first 7"):
        popular.recommend(USERS, reranker=reranker)
    with pytest.raises(DataError, match=r"1 of \d+ items have a negative value.*first 8"):
        popular.recommend(USERS, reranker=reranker, exclude=[7])
    assert len(popular.recommend(USERS, k=2, reranker=reranker, exclude=[7, 8])) == 18
    assert len(popular.recommend(USERS, k=2, reranker=reranker, candidates=[11, 14, 22])) > 0
    assert len(popular.recommend(USERS, k=2, reranker=reranker, where=pc.field("price") > 0)) == 18
    given = Reranker(clicks, value="price", default_value=1000.0, num_candidates=30)
    found = popular.recommend(histories=[[]], k=1, reranker=given, exclude=[8])
    assert found["item"].to_list() == [7]


def test_wrong_options_say_what_to_do(clicks):
    for options, message in (
        ({"num_candidates": 0}, "num_candidates must be 1 or more"),
        ({"quotas": {"category": 0}}, "quota of 'category' must be 1 or more"),
        ({"diversity": 1.5}, "diversity must be from 0 to 1"),
        ({"diversity": float("nan")}, "diversity must be from 0 to 1"),
        ({"value": "price"}, "value needs a model"),
        ({"task": "click"}, "Without a model, leave out task"),
        ({"default_value": 3.0}, "default_value needs value="),
        ({"model": clicks, "value": "price", "default_value": -3.0}, "number of 0 or more"),
        ({"model": clicks, "task": "click"}, "one probability"),
        ({"model": clicks, "profiles": VOCABULARY}, "no user_embedding"),
        ({"model": clicks, "candidates": VOCABULARY}, "no candidate_embedding"),
        ({"model": clicks, "moment": {"hour": 3}}, "reads no context"),
        ({"model": clicks, "histories": "shared"}, "histories must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Reranker(**options)
    with pytest.raises(TypeError, match="RankingModel"):
        Reranker(POPULAR)
    with pytest.raises(ValueError, match="no model"):
        Reranker().at(hour=3)
    for options, message in (
        ({"quotas": {"brand": 1}}, "no column 'brand'"),
        ({"diversity": 0.5, "diversity_by": "brand"}, "no column 'brand'"),
        ({"model": clicks, "value": "cost"}, "no column 'cost'"),
    ):
        with pytest.raises(MissingColumnError, match=message):
            POPULAR.recommend(USERS, reranker=Reranker(**options))
    with pytest.raises(DataError, match=r"Popularity has no vectors.*diversity_by="):
        POPULAR.recommend(USERS, reranker=Reranker(diversity=0.5))
    bare = Popularity().fit(BehaviorLog(LOG.table))
    with pytest.raises(DataError, match="there is no catalogue"):
        bare.recommend(USERS, reranker=Reranker(clicks, value="price"))
    grown = Popularity().fit(LOG, vocabulary=VOCABULARY.extend([99]))
    with pytest.raises(ValueError, match="reads 32 indexes and the first stage ranks 33"):
        grown.recommend(USERS, reranker=Reranker(clicks))


def test_a_model_that_gives_nan_is_told(clicks):
    broken = ClickModel(encoder())
    broken.build()
    broken.set_weights([np.full(w.shape, np.nan) for w in broken.get_weights()])
    with pytest.raises(DataError, match="The model gives NaN for"):
        POPULAR.recommend(USERS, reranker=Reranker(broken))
