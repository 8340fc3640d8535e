import numpy as np
import pytest

from tfrec_llm.errors import DataError
from tfrec_llm.training import pseudo_labels

PROBABILITIES = np.array([[0.0], [0.1], [0.3], [0.8], [0.9], [1.0]], "float32")


def test_only_what_is_sure_is_labelled():
    found = pseudo_labels(PROBABILITIES, positive=0.9, negative=0.1)
    assert found.labels[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert found.weights[:, 0].tolist() == [1, 1, 0, 0, 1, 1]
    assert found.labels.dtype == found.weights.dtype == np.float32
    assert found.share == pytest.approx(4 / 6)
    assert pseudo_labels([]).share == 0.0


def test_soft_labels_are_the_probabilities():
    found = pseudo_labels(PROBABILITIES, positive=0.5, negative=0.2, soft=True)
    np.testing.assert_array_equal(found.labels, PROBABILITIES)
    assert found.weights[:, 0].tolist() == [1, 1, 0, 1, 1, 1]


def test_thresholds_out_of_order_and_what_is_no_probability_are_refused():
    for positive, negative in ((0.5, 0.5), (1.1, 0.1), (0.9, -0.1)):
        with pytest.raises(ValueError, match="negative below positive"):
            pseudo_labels([0.5], positive=positive, negative=negative)
    with pytest.raises(DataError, match="2 of 3 probabilities are NaN or lie outside"):
        pseudo_labels([0.5, np.nan, 1.5])
