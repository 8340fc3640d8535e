import math

import numpy as np
import pytest

from tfrec_llm.metrics import accuracy, auc


def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_halves():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 200), rng.integers(0, 20, 200) / 20
    pairs = probabilities[labels == 1][:, None] - probabilities[labels == 0][None, :]
    assert auc(labels, probabilities) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_auc_of_a_single_class_is_not_a_number():
    assert math.isnan(auc(np.ones(3), np.array([0.1, 0.2, 0.3])))
    assert math.isnan(auc(np.zeros(3), np.array([0.1, 0.2, 0.3])))


def test_accuracy_counts_probabilities_on_the_right_side_of_a_half():
    assert accuracy(np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.5, 0.6])) == 0.5
