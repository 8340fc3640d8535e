import numpy as np
import pytest

from tfrec_llm.metrics import target_ranks, top_k
from tfrec_llm.metrics.running_ranks import RunningRanks
from tfrec_llm.metrics.running_top_k import RunningTopK


def scores_with_ties(rows=40, size=60, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, (rows, size)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    scores[0], scores[1] = 1, -np.inf
    return scores


def sorted_top_k(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(scores, order, axis=1) == -np.inf, -1, order)


@pytest.mark.parametrize("k", [1, 5, 59, 60, 100])
@pytest.mark.parametrize("seed", range(3))
def test_top_k_is_the_head_of_a_full_stable_sort(k, seed):
    scores = scores_with_ties(seed=seed)
    np.testing.assert_array_equal(top_k(scores, k), sorted_top_k(scores, k))


def test_top_k_of_many_rows_is_that_of_each_row():
    scores = np.random.default_rng(0).random((300, 3000), dtype=np.float32)
    np.testing.assert_array_equal(top_k(scores, 10), sorted_top_k(scores, 10))


def test_top_k_lists_no_item_whose_score_is_not_a_number():
    scores = np.array([[np.nan, 0.5, np.nan, 0.7], [0.1, 0.2, 0.3, 0.4]], np.float32)
    assert top_k(scores, 3).tolist() == [[3, 1, -1], [3, 2, 1]]


def test_top_k_does_not_change_the_scores():
    scores = scores_with_ties()
    scores.flags.writeable = False
    top_k(scores, 5)


@pytest.mark.parametrize(("shape", "k"), [((0, 5), 3), ((4, 0), 3)])
def test_top_k_of_nothing_is_empty(shape, k):
    assert top_k(np.zeros(shape), k).size == 0


def test_top_k_refuses_a_list_of_no_places():
    with pytest.raises(ValueError, match="k >= 1"):
        top_k(np.zeros((2, 3)), 0)


def sorted_rank(scores, target):
    """Last place of the target in a full sort in which it goes behind its ties."""
    if target < 0 or scores[target] == -np.inf:
        return np.inf
    others = np.delete(scores, target)
    best_first = -np.sort(-others)
    return 1 + np.searchsorted(-best_first, -scores[target], side="right")


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_a_full_sort_with_the_target_behind_its_ties(seed):
    scores = scores_with_ties(seed=seed)
    targets = np.random.default_rng(seed).integers(-1, scores.shape[1], len(scores))
    expected = [sorted_rank(row, target) for row, target in zip(scores, targets, strict=True)]
    np.testing.assert_array_equal(target_ranks(scores, targets), expected)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_removed_places_count_as_if_they_had_never_been_scored(seed, several):
    rng = np.random.default_rng(seed)
    scores = scores_with_ties(seed=seed)
    removed = np.nonzero(rng.random(scores.shape) < 0.3)
    without = scores.copy()
    without[removed] = -np.inf
    rows = np.sort(rng.integers(0, len(scores), 150)) if several else np.arange(len(scores))
    targets = rng.integers(-1, scores.shape[1], len(rows))
    expected = [
        sorted_rank(without[row], target) for row, target in zip(rows, targets, strict=True)
    ]
    ranks = target_ranks(scores, targets, rows=rows if several else None, removed=removed)
    np.testing.assert_array_equal(ranks, expected)


def test_ranks_of_many_rows_are_those_of_each_row():
    scores = np.random.default_rng(0).random((300, 3000), dtype=np.float32)
    targets = np.arange(300)
    expected = [sorted_rank(row, target) for row, target in zip(scores, targets, strict=True)]
    np.testing.assert_array_equal(target_ranks(scores, targets), expected)


def test_equal_scores_everywhere_rank_every_target_last():
    assert target_ranks(np.zeros((3, 50)), np.array([0, 20, 49])).tolist() == [50, 50, 50]


def test_a_model_that_scores_nan_gains_nothing():
    scores = np.array([[np.nan, 0.1, 0.2], [np.nan, 0.3, 0.2]], np.float32)
    assert target_ranks(scores, np.array([0, 1])).tolist() == [3, 2]


def test_targets_and_rows_must_go_together():
    with pytest.raises(ValueError, match="do not go with"):
        target_ranks(np.zeros((3, 5)), np.array([1, 2]))


def in_blocks(scores, width):
    for first in range(0, scores.shape[1], width):
        block = scores[:, first : first + width]
        block.flags.writeable = False
        yield first, block


@pytest.mark.parametrize("width", [1, 7, 60, 100])
@pytest.mark.parametrize("k", [1, 5, 60])
@pytest.mark.parametrize("seed", range(3))
def test_the_running_top_k_is_that_of_all_columns_at_once(width, k, seed):
    scores = scores_with_ties(seed=seed)
    scores[2] = np.arange(60)  # every column is better than all before it
    scores[3, ::7] = np.nan
    best = RunningTopK(len(scores), k)
    for first, block in in_blocks(scores, width):
        best.add(first, block)
    np.testing.assert_array_equal(best.columns, top_k(scores, k))
    found = np.take_along_axis(scores, np.maximum(best.columns, 0), axis=1)
    np.testing.assert_array_equal(best.scores, np.where(best.columns < 0, -np.inf, found))


@pytest.mark.parametrize("width", [1, 7, 60, 100])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_running_ranks_are_those_of_all_columns_at_once(width, several, seed):
    rng = np.random.default_rng(seed)
    scores = scores_with_ties(seed=seed)
    scores[3, ::7] = np.nan
    removed = np.nonzero(rng.random(scores.shape) < 0.3)
    rows = np.sort(rng.integers(0, len(scores), 150)) if several else np.arange(len(scores))
    targets = rng.integers(-1, scores.shape[1], len(rows))
    own = scores[rows, targets]
    running = RunningRanks(own, targets, rows=rows if several else None, removed=removed)
    for first, block in in_blocks(scores, width):
        running.add(first, block)
    assert running.exact()
    expected = target_ranks(scores, targets, rows=rows if several else None, removed=removed)
    np.testing.assert_array_equal(running.ranks(), expected)


def test_running_ranks_tell_the_scores_that_they_should_have_been_given():
    scores = scores_with_ties()
    targets = np.arange(len(scores))
    own = scores[targets, targets]
    running = RunningRanks(own + np.float32(1e-6), targets)
    for first, block in in_blocks(scores, 7):
        running.add(first, block)
    assert not running.exact()
    np.testing.assert_array_equal(running.found, own)


@pytest.mark.parametrize("width", [7, 60])
def test_the_running_top_k_leaves_out_what_is_removed_or_not_allowed(width):
    rng = np.random.default_rng(0)
    scores = scores_with_ties()
    scores[2] = np.arange(60)
    removed, allowed = rng.random(scores.shape) < 0.3, rng.random(scores.shape) < 0.6
    best = RunningTopK(len(scores), 3)
    for first, block in in_blocks(scores, width):
        here = slice(first, first + width)
        best.add(
            first,
            block,
            removed=[np.nonzero(removed[:, here]), (slice(None), [0])],
            only=np.nonzero(allowed[:, here]),
        )
    kept = allowed & ~removed
    kept[:, ::width] = False
    np.testing.assert_array_equal(best.columns, top_k(np.where(kept, scores, -np.inf), 3))
