import numpy as np
import pytest

from tfrec_llm.data.packing import pack, ranges


def test_every_sequence_has_one_place_and_no_row_overflows():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 51, 5_000)
    packing = pack(lengths, 64, rng)
    assert sorted(packing.sequences) == np.flatnonzero(lengths).tolist()
    rows = np.split(packing.sequences, packing.row_starts[1:-1])
    assert max(lengths[row].sum() for row in rows) <= 64
    assert packing.filled == lengths.sum()


def test_rows_are_filled_nearly_to_the_brim():
    lengths = np.random.default_rng(1).geometric(0.12, 20_000).clip(max=50)
    assert pack(lengths, 56, np.random.default_rng(0)).fill > 0.98


def test_packing_needs_the_same_rows_whatever_the_seed_but_mixes_users_anew():
    lengths = np.random.default_rng(1).integers(1, 30, 1_000)
    first, again, other = (pack(lengths, 64, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.sequences, again.sequences)
    assert other.num_rows == first.num_rows
    assert (other.sequences != first.sequences).any()


def test_a_sequence_longer_than_a_row_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="does not fit a row of 8"):
        pack(np.array([9]), 8, np.random.default_rng(0))


def test_no_sequences_give_no_rows():
    assert pack(np.zeros(0, np.int64), 8, np.random.default_rng(0)).num_rows == 0


def test_ranges_agree_with_a_plain_loop():
    starts, sizes = np.array([5, 0, 9]), np.array([2, 0, 3])
    expected = [s + i for s, n in zip(starts, sizes, strict=True) for i in range(n)]
    assert ranges(starts, sizes).tolist() == expected
