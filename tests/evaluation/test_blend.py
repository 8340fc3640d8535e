"""Blends of scorers, weighted on validation."""

import numpy as np
import pandas as pd
import pytest

from tfrec_llm.baselines import MarkovChain, Popularity, SequentialRules
from tfrec_llm.data import BehaviorLog, ShopSimulator, UserSequences, Vocabulary, leave_last_out
from tfrec_llm.errors import NotFittedError
from tfrec_llm.evaluation import Blend, Scorer


class Fixed(Scorer):
    """Scores by a rule on the newest item."""

    def __init__(self, vocabulary, histories, rule):
        self.vocabulary, self.histories, self.rule = vocabulary, histories, rule

    def score(self, sequences):
        scores = np.array([self.rule(sequences[row]) for row in range(len(sequences))], np.float32)
        scores[:, :3] = -np.inf
        return scores


@pytest.fixture(scope="module")
def split():
    return leave_last_out(ShopSimulator(300, 60, seed=1).simulate())


@pytest.fixture(scope="module")
def floors(split):
    vocabulary = Vocabulary.fit(split.train.item)
    kinds = {"chain": MarkovChain(), "popularity": Popularity(), "rules": SequentialRules()}
    return {name: kind.fit(split.train, vocabulary=vocabulary) for name, kind in kinds.items()}


def test_shares_add_up_to_one_and_keep_the_order_of_the_scores(floors, split):
    for scorer in floors.values():
        sequences = scorer.histories.take(np.arange(5))
        shares, scores = scorer.shares(sequences), scorer.score(sequences)
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
        assert (shares[:, :3] == 0).all()
        order = np.argsort(-scores, axis=1, kind="stable")
        sorted_shares = np.take_along_axis(shares, order, axis=1)
        assert (np.diff(sorted_shares, axis=1) <= 1e-9).all()


def test_a_blend_is_the_weighted_sum_of_its_scorers_shares(floors):
    blend = Blend(floors, weights={"chain": 3.0, "popularity": 0.0, "rules": 1.0})
    sequences = blend.histories.take(np.arange(7))
    expected = 0.75 * floors["chain"].shares(sequences) + 0.25 * floors["rules"].shares(sequences)
    np.testing.assert_allclose(blend.score(sequences)[:, 3:], expected[:, 3:], rtol=1e-5)
    assert np.isneginf(blend.score(sequences)[:, :3]).all()


@pytest.mark.parametrize("filter_seen", [True, False])
def test_the_search_ranks_as_evaluate_does(floors, split, filter_seen):
    blend = Blend(floors).fit(split.valid, filter_seen=filter_seen)
    options = {"k": 10, "filter_seen": filter_seen, "confidence": None}
    chosen = blend.evaluate(split.valid, **options)["ndcg@10"]
    for name, scorer in floors.items():
        alone = scorer.evaluate(split.valid, **options)["ndcg@10"]
        single = Blend({name: scorer}, weights={name: 1.0}).evaluate(split.valid, **options)
        assert single["ndcg@10"] == pytest.approx(alone, abs=1e-4)
        assert chosen >= alone - 1e-4


def test_two_scorers_that_know_different_halves_are_mixed(split):
    vocabulary = Vocabulary([f"i{n}" for n in range(10)])
    names = [f"u{n}" for n in range(90)]
    # The target follows the newest item: one scorer knows it for even ones, the other for odd.
    log = {"user": names, "item": [f"i{n % 9 + 1}" for n in range(90)], "time": np.arange(90)}
    log = BehaviorLog.from_pandas(pd.DataFrame(log), user="user", item="item", time="time")
    read = pd.DataFrame({"user": names, "item": [f"i{n % 9}" for n in range(90)], "time": 0})
    read = BehaviorLog.from_pandas(read, user="user", item="item", time="time")
    histories = UserSequences.from_log(read, vocabulary)

    def rule(parity):
        def scores(history):
            found = np.zeros(13)
            newest = int(history[-1])
            found[newest + 1 if newest % 2 == parity else 3] = 5.0
            return found

        return scores

    scorers = {str(parity): Fixed(vocabulary, histories, rule(parity)) for parity in (0, 1)}
    blend = Blend(scorers).fit(log, metric="ndcg@2", filter_seen=False)
    options = {"k": 2, "filter_seen": False, "metrics": ["hr"], "confidence": None}
    alone = max(scorer.evaluate(log, **options)["hr@2"] for scorer in scorers.values())
    assert blend.evaluate(log, **options)["hr@2"] > alone + 0.2
    assert min(blend.weights.values()) > 0.1


def test_items_that_nobody_repeats_lose_their_weight_and_those_repeated_gain():
    # Each user goes round some items; the scorer holds the newest item likelier than the next.
    names = [f"u{n}" for n in range(60) for _ in range(4)]
    held = [f"i{(n + step) % 30}" for n in range(60) for step in range(4)]
    read = pd.DataFrame({"user": names, "item": held, "time": np.arange(240)})
    read = BehaviorLog.from_pandas(read, user="user", item="item", time="time")
    vocabulary = Vocabulary([f"i{n}" for n in range(30)])
    histories = UserSequences.from_log(read, vocabulary)

    def newest_first(history):
        found = np.zeros(33)
        found[history[-1]] = 2.0
        found[(history[-1] - 3 + 1) % 30 + 3] = 1.0
        return found

    scorer = Fixed(vocabulary, histories, newest_first)
    users = [f"u{n}" for n in range(60)]

    def held_out(steps):
        log = {"user": users, "item": [f"i{(n + steps) % 30}" for n in range(60)], "time": 999}
        return BehaviorLog.from_pandas(pd.DataFrame(log), user="user", item="item", time="time")

    options = {"k": 1, "metrics": ["hr"], "filter_seen": False, "confidence": None}
    new, repeated = held_out(4), held_out(3)
    blend = Blend({"newest": scorer}).fit(new, metric="hr@1", filter_seen=False)
    assert 0.0 <= blend.repeat_weight < 0.5
    assert scorer.evaluate(new, **options)["hr@1"] == 0.0
    assert blend.evaluate(new, **options)["hr@1"] == 1.0
    blend = Blend({"newest": scorer}).fit(repeated, metric="hr@1", filter_seen=False)
    assert blend.repeat_weight == 1.0
    assert blend.evaluate(repeated, **options)["hr@1"] == 1.0
    # A given weight stays, and where seen items leave the ranking there is nothing to choose.
    given = Blend({"newest": scorer}, repeat_weight=0.25).fit(new, filter_seen=False)
    assert given.repeat_weight == 0.25
    assert Blend({"newest": scorer}).fit(new).repeat_weight == 1.0


def test_items_that_everybody_repeats_come_first_however_unlikely_their_scorer_holds_them():
    users = [f"u{n}" for n in range(60)]
    log = pd.DataFrame({"user": users, "item": [f"i{n}" for n in range(60)], "time": 0})
    log = BehaviorLog.from_pandas(log, user="user", item="item", time="time")
    vocabulary = Vocabulary([f"i{n}" for n in range(300)])

    def newest_last(history):
        return np.where(np.arange(303) == history[-1], 0.0, 5.0)

    scorer = Fixed(vocabulary, UserSequences.from_log(log, vocabulary), newest_last)
    options = {"k": 1, "metrics": ["hr"], "filter_seen": False, "confidence": None}
    assert scorer.evaluate(log, **options)["hr@1"] == 0.0
    blend = Blend({"newest": scorer}).fit(log, metric="hr@1", filter_seen=False)
    assert blend.repeat_weight > 100.0
    assert blend.evaluate(log, **options)["hr@1"] == 1.0


def test_what_does_not_fit_is_told(floors, split):
    with pytest.raises(NotFittedError, match="no weights"):
        Blend(floors).score(floors["chain"].histories)
    other = Popularity().fit(split.valid)
    with pytest.raises(ValueError, match="different items"):
        Blend({"one": floors["chain"], "two": other})
    with pytest.raises(ValueError, match="A blend needs"):
        Blend({})
    with pytest.raises(ValueError, match="weights must"):
        Blend(floors, weights={"chain": 1.0})
    with pytest.raises(ValueError, match="repeat_weight"):
        Blend(floors, repeat_weight=-1.0)
    with pytest.raises(ValueError, match="metric"):
        Blend(floors).fit(split.valid, metric="accuracy@10")
