import numpy as np
import pytest

from tfrec_llm.data.past_rows import PastRows


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_the_key_before_the_moment_are_found_and_no_others(seed):
    rng = np.random.default_rng(seed)
    keys, times = rng.integers(-1, 6, 200), rng.integers(-20, 20, 200)
    past = PastRows(keys, times)
    asked, moments = rng.integers(-1, 8, 50), rng.integers(-25, 25, 50)
    starts, ends = past.before(asked, moments)
    for key, moment, start, end in zip(asked, moments, starts, ends, strict=True):
        found = past.order[start:end]
        expected = np.flatnonzero((keys == key) & (times < moment) & (keys >= 0))
        assert sorted(found) == expected.tolist()
        # Oldest first; rows of one time keep their order.
        assert found.tolist() == expected[np.argsort(times[expected], kind="stable")].tolist()


def test_no_rows_and_no_questions_are_no_error():
    nothing = np.zeros(0, np.int64)
    starts, ends = PastRows(nothing, nothing).before(np.array([0, 3]), np.array([5, 5]))
    assert (starts == ends).all()
    starts, _ = PastRows(np.array([1]), np.array([1])).before(nothing, nothing)
    assert len(starts) == 0
