import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfrec_llm.data.vocabulary import MASK, NUM_RESERVED, PADDING, UNKNOWN, Vocabulary
from tfrec_llm.errors import DataFileError, MixedTypeError, NullValueError, UnknownItemError

CLICKS = ["B4", "A13", "C7", "A13", "D1", "C7", "A13"]


@pytest.fixture
def vocabulary():
    return Vocabulary.fit(CLICKS)


def test_padding_mask_and_unknown_come_before_the_items():
    assert (PADDING, MASK, UNKNOWN, NUM_RESERVED) == (0, 1, 2, 3)


def test_frequent_items_come_first_and_ties_keep_their_first_appearance(vocabulary):
    assert vocabulary.ids.to_pylist() == ["A13", "C7", "B4", "D1"]
    assert vocabulary.counts.tolist() == [0, 0, 0, 3, 2, 1, 1]
    assert len(vocabulary) == 4
    assert vocabulary.size == 7


@pytest.mark.parametrize(
    "ids",
    [
        CLICKS,
        np.array(CLICKS),
        pd.Series(CLICKS),
        pd.Series(CLICKS, dtype="category"),
        pa.array(CLICKS, pa.large_string()),
        pa.array(CLICKS).dictionary_encode(),
        pa.chunked_array([pa.array(CLICKS[:2]), pa.array(CLICKS[2:])]),
        pa.chunked_array(
            [pa.array(CLICKS[:2]).dictionary_encode(), pa.array(CLICKS[2:]).dictionary_encode()]
        ),
    ],
)
def test_every_kind_of_array_gives_the_same_vocabulary(ids, vocabulary):
    assert Vocabulary.fit(ids) == vocabulary
    assert vocabulary.encode(ids).tolist() == [5, 3, 4, 3, 6, 4, 3]


def test_rare_items_are_left_out_and_counted_as_unknown():
    vocabulary = Vocabulary.fit(CLICKS, min_count=2)
    assert vocabulary.ids.to_pylist() == ["A13", "C7"]
    assert vocabulary.counts.tolist() == [0, 0, 2, 3, 2]
    assert "B4" not in vocabulary


@pytest.mark.parametrize("ids", [CLICKS, [70, -2, 5, 70]])
def test_decoding_returns_what_was_encoded(ids):
    vocabulary = Vocabulary.fit(ids)
    encoded = vocabulary.encode(ids)
    assert encoded.dtype == np.int32
    assert vocabulary.decode(encoded).tolist() == ids
    assert vocabulary.decode(encoded.reshape(1, -1)).tolist() == [ids]


def test_integer_ids_decode_to_integers_that_join_with_a_users_table():
    vocabulary = Vocabulary.fit(np.array([7, 9, 9], np.int32))
    assert vocabulary.decode([3, 4]).dtype == np.int64
    assert vocabulary.decode([3, PADDING]).tolist() == [9, None]


def test_an_index_out_of_range_is_an_error(vocabulary):
    with pytest.raises(IndexError, match=r"Index 7 is not in \[0, 7\)"):
        vocabulary.decode([3, 7])
    with pytest.raises(IndexError, match="Index -1"):
        vocabulary.decode([-1])


def test_unknown_ids_are_named_with_their_number(vocabulary):
    message = r"2 of 3 items are not in the vocabulary, first 'Z9'\. Pass on_unknown"
    with pytest.raises(UnknownItemError, match=message):
        vocabulary.encode(["A13", "Z9", "Z8"])


@pytest.mark.parametrize("on_unknown", ["ignore", "unknown"])
def test_unknown_ids_become_the_unknown_index(vocabulary, on_unknown):
    assert vocabulary.encode(["A13", "Z9", None], on_unknown=on_unknown).tolist() == [3, 2, 2]


def test_unknown_ids_can_warn(vocabulary):
    with pytest.warns(UserWarning, match="1 of 2 items are not in the vocabulary, first 'Z9'"):
        assert vocabulary.encode(["Z9", "A13"], on_unknown="warn").tolist() == [2, 3]


def test_a_misspelt_policy_is_an_error(vocabulary):
    with pytest.raises(ValueError, match="on_unknown must be"):
        vocabulary.encode(["A13"], on_unknown="skip")


def test_nothing_encodes_to_nothing(vocabulary):
    assert vocabulary.encode([]).shape == (0,)
    assert vocabulary.decode([]).shape == (0,)


def test_numbers_are_not_taken_for_strings():
    vocabulary = Vocabulary.fit(["7", "8"])
    with pytest.raises(MixedTypeError, match=r"of type string \(first '7'\).*int64 \(first 7\)"):
        vocabulary.encode([7])
    with pytest.raises(MixedTypeError):
        _ = 7 in vocabulary
    with pytest.raises(MixedTypeError, match="several types"):
        Vocabulary.fit(["7", 7])


def test_a_single_id_in_place_of_a_list_is_an_error(vocabulary):
    with pytest.raises(TypeError, match="single id 'A13'"):
        vocabulary.encode("A13")


def test_missing_ids_are_counted():
    with pytest.raises(NullValueError, match="2 of 4 ids are missing"):
        Vocabulary.fit(["A", None, "B", float("nan")])


def test_integers_that_pandas_made_floats_are_integers_again():
    vocabulary = Vocabulary.fit([3, 4])
    assert vocabulary.encode(pd.Series([4.0, 3.0])).tolist() == [4, 3]
    assert vocabulary.encode(pd.Series([4.0, None]), on_unknown="ignore").tolist() == [4, 2]


def test_extending_moves_no_old_index(vocabulary):
    longer = vocabulary.extend(["E5", "A13", "F6", "E5"])
    assert longer.ids.to_pylist() == ["A13", "C7", "B4", "D1", "E5", "F6"]
    assert longer.encode(CLICKS).tolist() == vocabulary.encode(CLICKS).tolist()
    assert longer.counts.tolist() == [0, 0, 0, 3, 2, 1, 1, 0, 0]
    assert len(vocabulary) == 4


def test_an_empty_vocabulary_can_be_extended():
    empty = Vocabulary([])
    assert empty.size == NUM_RESERVED
    assert empty.extend([5, 6]).encode([6]).tolist() == [4]
    assert empty.encode(["A"], on_unknown="ignore").tolist() == [UNKNOWN]


def test_few_ids_in_a_long_vocabulary_are_found_at_the_same_places():
    ids = np.random.default_rng(0).permutation(60_000)
    vocabulary = Vocabulary(ids)
    assert vocabulary.encode(ids[:2_000]).tolist() == list(range(3, 2_003))
    assert vocabulary.encode(ids[-5:]).tolist() == list(range(59_998, 60_003))
    assert vocabulary.encode([-1], on_unknown="ignore").tolist() == [UNKNOWN]


@pytest.mark.parametrize("ids", [CLICKS, [70, -2, 5, 70], []])
def test_a_saved_vocabulary_is_loaded_equal(ids, tmp_path):
    vocabulary = Vocabulary.fit(ids, min_count=2)
    vocabulary.save(tmp_path / "vocabulary.parquet")
    assert Vocabulary.load(tmp_path / "vocabulary.parquet") == vocabulary


def test_a_failed_save_leaves_the_old_file(vocabulary, tmp_path, monkeypatch):
    path = tmp_path / "vocabulary.parquet"
    vocabulary.save(path)

    def full_disk(table, where, **kwargs):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        vocabulary.extend(["E5"]).save(path)
    assert Vocabulary.load(path) == vocabulary
    assert [entry.name for entry in tmp_path.iterdir()] == ["vocabulary.parquet"]


def test_damaged_and_foreign_files_are_told_apart(vocabulary, tmp_path):
    path = tmp_path / "vocabulary.parquet"
    vocabulary.save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataFileError, match="cannot be read"):
        Vocabulary.load(path)
    pd.DataFrame({"id": ["A"]}).to_parquet(path)
    with pytest.raises(DataFileError, match="does not hold a vocabulary"):
        Vocabulary.load(path)
    with pytest.raises(FileNotFoundError):
        Vocabulary.load(tmp_path / "none.parquet")


def test_vocabularies_differ_when_their_ids_or_counts_do(vocabulary):
    assert vocabulary == Vocabulary.fit(CLICKS)
    assert vocabulary != Vocabulary(vocabulary.ids)
    assert vocabulary != vocabulary.extend(["E5"])
