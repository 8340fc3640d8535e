import tracemalloc

import numpy as np
import pandas as pd
import pytest

from tfrec_llm.data import BehaviorLog, UserSequences, Vocabulary, leave_last_out, temporal_split
from tfrec_llm.data.vocabulary import NUM_RESERVED, UNKNOWN
from tfrec_llm.errors import EmptyLogError, NullValueError
from tfrec_llm.evaluation import RankingTask
from tfrec_llm.metrics import RANKING_METRICS


def random_log(users=60, items=40, rows=1500, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "user": rng.integers(0, users, rows),
            "item": [f"i{i}" for i in rng.zipf(1.3, rows) % items],
            "time": rng.integers(0, 500, rows),
        }
    )
    return BehaviorLog.from_pandas(frame)


def table_scores(vocabulary, levels=7):
    """Scores with many ties that depend on the history's length and newest item alone."""
    table = np.random.default_rng(1).integers(0, levels, (97, vocabulary.size))
    table = table.astype(np.float32)
    table[:, :NUM_RESERVED] = -np.inf

    def score(sequences):
        keys = [
            len(s) * 31 + (int(s[-1]) if len(s) else 0)
            for s in map(sequences.__getitem__, range(len(sequences)))
        ]
        return table[np.array(keys, int) % 97]

    return score


def plain_metrics(log, vocabulary, score, k, filter_seen):
    """The protocol user by user and place by place, with a full stable sort."""
    frame, history = log.to_pandas(), log.history.to_pandas()
    found = {name: [] for name in RANKING_METRICS}
    for user in frame["user"].unique():
        past = history[history["user"] == user].sort_values("time", kind="stable")["item"]
        sequences = UserSequences.from_histories([list(past)], vocabulary, on_unknown="unknown")
        scores = dict(
            zip(vocabulary.ids.to_pylist(), score(sequences)[0][NUM_RESERVED:], strict=True)
        )
        if filter_seen:
            scores = {item: value for item, value in scores.items() if item not in set(past)}
        targets = set(frame[frame["user"] == user]["item"])
        # Behind everything that ties with it: a target is worth less than others by a hair.
        ranks = []
        for target in targets:
            others = [value for item, value in scores.items() if item != target]
            better = (
                sum(value >= scores[target] for value in others) if target in scores else np.inf
            )
            ranks.append(1 + better)
        for name, metric in RANKING_METRICS.items():
            offsets = np.array([0, len(ranks)])
            found[name].append(metric(np.array(ranks), k, offsets=offsets)[0])
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("split", [leave_last_out, temporal_split])
def test_evaluation_equals_ranking_each_user_by_itself(split, filter_seen):
    parts = split(random_log())
    vocabulary = Vocabulary.fit(parts.train.item, min_count=20)
    score = table_scores(vocabulary)
    task = RankingTask.from_log(parts.test, vocabulary, filter_seen=filter_seen)
    report = task.evaluate(score, k=5, confidence=None, chunk_size=7)
    expected = plain_metrics(parts.test, vocabulary, score, 5, filter_seen)
    assert {name.partition("@")[0]: value for name, value in report.items()} == pytest.approx(
        expected
    )
    assert report.evaluated.unknown_targets > 0


def test_the_chunk_size_changes_nothing():
    parts = temporal_split(random_log())
    vocabulary = Vocabulary.fit(parts.train.item)
    task = RankingTask.from_log(parts.test, vocabulary)
    score = table_scores(vocabulary)
    one = task.evaluate(score, beyond_accuracy=True, chunk_size=1)
    other = task.evaluate(score, beyond_accuracy=True, chunk_size=1000)
    assert dict(one) == dict(other)
    assert one.intervals == other.intervals


def test_lists_are_the_heads_of_the_rankings_without_what_was_seen():
    parts = leave_last_out(random_log())
    vocabulary = Vocabulary.fit(parts.train.item)
    task = RankingTask.from_log(parts.test, vocabulary)
    score = table_scores(vocabulary)
    lists = task.rank(score, list_length=10, chunk_size=7).lists
    for row in range(len(task)):
        scores = score(task.histories.take([row]))[0].copy()
        scores[task.histories[row]] = -np.inf
        order = np.argsort(-scores, kind="stable")[:10]
        expected = np.where(scores[order] == -np.inf, -1, order - NUM_RESERVED)
        np.testing.assert_array_equal(lists[row], expected)


def test_a_repeated_item_is_a_miss_when_seen_items_leave_and_a_target_otherwise():
    log = BehaviorLog.from_pandas(pd.DataFrame({"user": 1, "item": list("ABA")}), time=None)
    test = leave_last_out(log).test
    vocabulary = Vocabulary(["A", "B", "C"])

    def prefer_a(sequences):
        return np.tile(np.array([-np.inf] * 3 + [3, 2, 1], np.float32), (len(sequences), 1))

    removed = RankingTask.from_log(test, vocabulary).evaluate(prefer_a, k=3)
    kept = RankingTask.from_log(test, vocabulary, filter_seen=False).evaluate(prefer_a, k=3)
    assert (removed["hr@3"], kept["hr@3"]) == (0, 1)


def test_users_without_history_are_scored_by_an_empty_one():
    frame = pd.DataFrame({"user": [1, 2], "item": ["A", "B"]})
    log = BehaviorLog.from_pandas(frame, time=None)
    task = RankingTask.from_log(log, Vocabulary(["A", "B"]))
    assert task.histories.lengths.tolist() == [0, 0]
    assert len(task.rank(lambda s: np.zeros((len(s), 5))).ranks) == 2


def test_what_the_reserved_indexes_score_does_not_matter():
    parts = leave_last_out(random_log())
    vocabulary = Vocabulary.fit(parts.train.item)
    task = RankingTask.from_log(parts.test, vocabulary)
    score = table_scores(vocabulary)

    def generous(sequences):
        scores = score(sequences).copy()
        scores[:, :NUM_RESERVED] = 100
        return scores

    assert dict(task.evaluate(generous)) == dict(task.evaluate(score))


def test_a_sample_of_the_users_has_their_own_ranks():
    parts = temporal_split(random_log())
    vocabulary = Vocabulary.fit(parts.train.item)
    task = RankingTask.from_log(parts.test, vocabulary)
    score = table_scores(vocabulary)
    whole, rows = task.rank(score), np.array([5, 2, 9])
    sample = task.take(rows).rank(score)
    expected = [whole.ranks[whole.offsets[row] : whole.offsets[row + 1]] for row in rows]
    np.testing.assert_array_equal(sample.ranks, np.concatenate(expected))


def test_what_cannot_be_evaluated_says_why():
    vocabulary = Vocabulary(["A"])
    log = BehaviorLog.from_pandas(pd.DataFrame({"user": [1], "item": ["A"]}), time=None)
    with pytest.raises(EmptyLogError, match="no rows"):
        RankingTask.from_log(log.take(np.zeros(0, int)), vocabulary)
    nulls = pd.DataFrame({"user": [1, 2], "item": ["A", None]})
    with pytest.raises(NullValueError, match="item"):
        RankingTask.from_log(BehaviorLog.from_pandas(nulls, time=None), vocabulary)
    task = RankingTask.from_log(log, vocabulary)
    with pytest.raises(ValueError, match="must have the shape"):
        task.rank(lambda sequences: np.zeros((len(sequences), 2)))
    with pytest.raises(ValueError, match="metrics must be among"):
        task.evaluate(lambda sequences: np.zeros((1, 4)), metrics=["auc"])
    with pytest.raises(ValueError, match="chunk_size"):
        task.rank(lambda sequences: np.zeros((1, 4)), chunk_size=0)


def test_memory_stays_far_below_users_times_items():
    users, items = 5_000, 200_000
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary(np.arange(items))
    histories = UserSequences(
        rng.integers(NUM_RESERVED, items, 10 * users).astype(np.int32),
        np.arange(0, 10 * users + 1, 10),
    )
    targets = np.full(users, UNKNOWN, np.int32)
    targets[::2] = rng.integers(NUM_RESERVED, items, users // 2)
    task = RankingTask(histories, UserSequences(targets, np.arange(users + 1)), vocabulary)
    row = rng.random(vocabulary.size, dtype=np.float32)
    tracemalloc.start()
    try:
        task.rank(lambda s: np.tile(row, (len(s), 1)), list_length=10, chunk_size=64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < users * items * 4 / 20
