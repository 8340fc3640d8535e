"""Scores in blocks of items give what whole rows of scores give."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from keras import ops

import tfrec_llm as tr
from tfrec_llm.data import UserSequences, Vocabulary
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.evaluation import ModelScorer, RankingTask, Scorer, item_scores
from tfrec_llm.evaluation.item_scores import ItemScores, RowsReplaced, WholeScores
from tfrec_llm.evaluation.product_scores import ProductScores

ITEMS = 300


class Whole(Scorer):
    """The scores of another scorer, all items of a user at once."""

    def __init__(self, scorer):
        self.scorer = scorer
        self.vocabulary = scorer.vocabulary
        self.histories = scorer.histories

    def score(self, sequences):
        return self.scorer.score(sequences)


@pytest.fixture(params=[64, 256, 1000])
def width(request, monkeypatch):
    """Widths of blocks: many, two, and more than there are items."""
    monkeypatch.setattr(item_scores, "_WIDEST", request.param)


@pytest.fixture(scope="module")
def split():
    return tr.data.temporal_split(tr.data.ShopSimulator(150, ITEMS, seed=3).simulate())


@pytest.fixture(scope="module", params=["next", "masked", "cosine"])
def scorer(request, split):
    vocabulary = Vocabulary.fit(split.train.item)
    encoder = tr.models.BehaviorEncoder(vocabulary.size, 8, 1, 2, max_length=16)
    options = {"similarity": "cosine", "temperature": 0.1} if request.param == "cosine" else {}
    kind = tr.models.MaskedBehaviorModel if request.param == "masked" else None
    model = (kind or tr.models.NextBehaviorModel)(encoder, **options)
    model.build()
    # Few different vectors, so that many items tie.
    table = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    model.table.assign(table[np.random.default_rng(1).integers(0, 5, vocabulary.size)])
    return ModelScorer(model, vocabulary, histories=UserSequences.from_log(split.train, vocabulary))


@pytest.mark.usefixtures("width")
@pytest.mark.parametrize("filter_seen", [True, False])
def test_evaluation_in_blocks_is_that_of_whole_rows(scorer, split, filter_seen):
    task = RankingTask.from_log(split.test, scorer.vocabulary, filter_seen=filter_seen)
    assert (task.histories.lengths == 0).any(), "some users have no history"
    assert (task.targets.lengths > 1).any(), "some users have several targets"
    in_blocks = task.rank(scorer, list_length=10, chunk_size=32)
    whole = task.rank(scorer.score, list_length=10, chunk_size=32)
    np.testing.assert_array_equal(in_blocks.ranks, whole.ranks)
    np.testing.assert_array_equal(in_blocks.lists, whole.lists)
    assert len(np.unique(in_blocks.ranks)) > 5


@pytest.mark.usefixtures("width")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filter_seen": False, "k": 1000},
        {"candidates": list(range(1, 200)), "on_unknown": "ignore"},
        {"exclude": list(range(1, 200)), "k": 20},
        {"by_user": "candidates"},
        {"by_user": "exclude"},
    ],
)
def test_recommendations_in_blocks_are_those_of_whole_rows(scorer, options):
    options = dict(options)
    if "by_user" in options:
        rng = np.random.default_rng(0)
        lists = [rng.permutation(ITEMS)[:100] + 1 for _ in range(len(scorer.histories))]
        options = {options["by_user"]: lists, "on_unknown": "ignore"}
    found = scorer.recommend(batch_size=32, **options)
    expected = Whole(scorer).recommend(batch_size=32, **options)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert len(found) > 100


@pytest.mark.usefixtures("width")
def test_recommended_scores_and_order_are_those_of_predict(scorer):
    batch = tr.data.padded_batches(scorer.histories, max_length=16, batch_size=1000)[0]
    predicted = np.asarray(scorer.model.predict_on_batch(batch))[:, NUM_RESERVED:]
    shown = scorer.recommend(k=1000, filter_seen=False, batch_size=1000)
    users = np.repeat(np.arange(len(predicted)), predicted.shape[1])
    columns = scorer.vocabulary.encode(shown["item"]) - NUM_RESERVED
    np.testing.assert_allclose(shown["score"], predicted[users, columns], atol=1e-5)
    # Items with the same vector tie, and stand in the order of the vocabulary.
    table = np.asarray(ops.convert_to_numpy(scorer.model.table))[NUM_RESERVED:]
    _, kinds = np.unique(table, axis=0, return_inverse=True)
    of_kind = np.stack([predicted[:, kinds == kind].mean(axis=1) for kind in range(5)], axis=1)
    expected = np.lexsort((np.tile(np.arange(len(kinds)), (len(predicted), 1)), -of_kind[:, kinds]))
    np.testing.assert_array_equal(columns.reshape(expected.shape), expected)


def test_ranks_are_counted_again_where_a_targets_score_was_rounded_otherwise(split):
    class Rounded(ProductScores):
        def at(self, rows, items):
            return super().at(rows, items) + np.float32(0.01)

    class Rough(Scorer):
        streams = True

        def __init__(self, vocabulary, kind):
            rng = np.random.default_rng(0)
            self.vocabulary, self.kind = vocabulary, kind
            self.users = rng.normal(size=(1000, 4)).astype("float32")
            self.items = rng.normal(size=(len(vocabulary), 4)).astype("float32")

        def item_scores(self, sequences):
            return self.kind(self.users[sequences.lengths], self.items, len(self.items))

        def score(self, sequences):
            raise AssertionError("not asked for")

    vocabulary = Vocabulary.fit(split.train.item)
    task = RankingTask.from_log(split.test, vocabulary)
    found = task.rank(Rough(vocabulary, Rounded), list_length=5)
    expected = task.rank(Rough(vocabulary, ProductScores), list_length=5)
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.lists, expected.lists)


@pytest.mark.usefixtures("width")
def test_blocks_and_pairs_are_those_of_the_whole_product():
    rng = np.random.default_rng(0)
    users = rng.normal(size=(9, 4)).astype("float32")
    items = rng.normal(size=(ITEMS, 4)).astype("float32")
    values = rng.normal(size=ITEMS).astype("float32")
    expected = users @ items.T
    expected[[2, 5]] = values
    product = ProductScores(users, items, ITEMS)
    rows, columns = rng.integers(0, 9, 50), rng.integers(0, ITEMS, 50)
    for scores in (RowsReplaced(product, np.array([2, 5]), values), WholeScores(expected)):
        assert isinstance(scores, ItemScores)
        np.testing.assert_allclose(scores.whole_rows(), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            scores.at(rows, columns), expected[rows, columns], rtol=1e-5, atol=1e-6
        )


def test_memory_of_a_model_does_not_grow_with_users_times_items():
    users, items = 1_000, 100_000
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary(np.arange(items))
    encoder = tr.models.BehaviorEncoder(vocabulary.size, 8, 1, 2, max_length=8)
    model = tr.models.NextBehaviorModel(encoder)
    model.build()
    histories = UserSequences(
        rng.integers(NUM_RESERVED, items, 5 * users).astype(np.int32),
        np.arange(0, 5 * users + 1, 5),
    )
    targets = rng.integers(NUM_RESERVED, items, users).astype(np.int32)
    scorer = ModelScorer(model, vocabulary, histories=histories)
    task = RankingTask(histories, UserSequences(targets, np.arange(users + 1)), vocabulary)
    peaks = []
    for work in (
        lambda: task.rank(scorer, list_length=10, chunk_size=users),
        lambda: scorer.recommend(k=10, batch_size=users),
    ):
        tracemalloc.start()
        try:
            work()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert max(peaks) < users * items * 4 / 8
