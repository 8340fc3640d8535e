from itertools import combinations

import numpy as np
import pytest

from tfrec_llm.metrics import (
    catalogue_coverage,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_bias,
)

LISTS = np.array([[0, 3, 5, 1], [2, 5, -1, -1], [4, -1, -1, -1]])


def test_exposures_of_two_chunks_add_up():
    whole = exposure(LISTS, 7)
    assert whole.tolist() == [1, 1, 1, 1, 1, 2, 0]
    np.testing.assert_array_equal(exposure(LISTS[:1], 7) + exposure(LISTS[1:], 7), whole)
    assert catalogue_coverage(whole) == 6 / 7


def test_gini_is_the_mean_difference_of_all_pairs_over_twice_the_mean():
    shown = np.random.default_rng(0).poisson(2.0, 30)
    plain = np.abs(shown[:, None] - shown[None, :]).mean() / (2 * shown.mean())
    assert gini(shown) == pytest.approx(plain)
    assert gini(np.zeros(5, int)) == 0


def test_lists_drawn_evenly_have_no_popularity_bias_and_popular_ones_have():
    counts = np.array([50, 20, 20, 5, 1, 1, 0])
    everything = np.arange(7)[None, :]
    assert popularity_bias(everything, counts)[0] == pytest.approx(0.5)
    assert popularity_bias(np.array([[0, 1]]), counts)[0] > 0.75


def test_rare_items_are_novel_by_their_bits():
    counts = np.array([8, 4, 2, 1, 1, 0])
    assert novelty(np.array([[0], [1], [5]]), counts).tolist() == [1, 2, 4]
    assert np.isnan(novelty(np.array([[-1, -1]]), counts)[0])


def test_diversity_of_vectors_is_one_minus_the_mean_cosine_of_all_pairs():
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    vectors[3] = 0
    expected = []
    for row in LISTS:
        pairs = list(combinations(row[row >= 0], 2))
        norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        cosines = [vectors[a] @ vectors[b] / (norms[a] * norms[b]) for a, b in pairs]
        expected.append(1 - np.mean(cosines) if pairs else np.nan)
    np.testing.assert_allclose(intra_list_diversity(LISTS, vectors), expected)


def test_diversity_of_categories_is_the_share_of_pairs_that_differ():
    categories = np.array([1, 1, 2, 2, 2, 1])
    diversity = intra_list_diversity(LISTS, categories)
    np.testing.assert_allclose(diversity, [3 / 6, 1.0, np.nan])
