import datetime
import errno
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrec_llm.data import Catalogue, FeatureTable, UserTable
from tfrec_llm.data.feature_types import vector_matrix
from tfrec_llm.errors import (
    DataError,
    DataFileError,
    MissingColumnError,
    MixedTypeError,
    NullValueError,
)


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "sku": ["A", "B", "C"],
            "title": ["White blouse", "Long red skirt", "Blue jeans"],
            "brand": ["X", None, "Y"],
            "price": [1.5, np.nan, 3],
            "year": [2001, 2002, 2003],
            "tags": [["a", "b"], None, ["c"]],
            "since": pd.to_datetime(["2024-01-01", None, "2024-01-02 10:00"], format="ISO8601"),
            "sale": [True, False, None],
            "shelf": [1.0, 2.0, np.nan],
        }
    )


@pytest.fixture
def items(frame):
    return Catalogue.from_pandas(frame, key="sku", types={"shelf": "categorical"})


def test_types_are_inferred_where_not_given(items):
    assert items.types == {
        "title": "text",
        "brand": "categorical",
        "price": "numeric",
        "year": "numeric",
        "tags": "multi",
        "since": "date",
        "sale": "categorical",
        "shelf": "categorical",
    }


def test_each_type_is_kept_in_one_form(items):
    kinds = {name: items.table.schema.field(name).type for name in items.table.column_names}
    assert kinds == {
        "item": pa.string(),
        "title": pa.string(),
        "brand": pa.string(),
        "price": pa.float64(),
        "year": pa.int64(),
        "tags": pa.list_(pa.string()),
        "since": pa.timestamp("us"),
        "sale": pa.string(),
        "shelf": pa.string(),
    }
    assert items.column("shelf").to_pylist() == ["1", "2", None]
    assert items.column("sale").to_pylist() == ["true", "false", None]
    assert items.column("price").to_pylist() == [1.5, None, 3.0]


def test_colours_of_several_words_are_categories_and_titles_are_text():
    colours = ["navy blue", "of many colours", "red"] * 20
    titles = [f"Blouse number {n}" for n in range(60)]
    table = pa.table({"item": range(60), "colour": colours, "title": titles})
    assert Catalogue(table).types == {"colour": "categorical", "title": "text"}


def test_text_is_split_into_the_values_of_a_multi_column():
    table = pa.table({"item": [1, 2, 3, 4], "genres": ["Comedy|Drama", "War", "", None]})
    movies = Catalogue(table, types={"genres": "multi"})
    assert movies.column("genres").to_pylist() == [["Comedy", "Drama"], ["War"], None, None]
    assert movies.describe(1) == "Comedy/Drama"
    table = pa.table({"item": [1], "genres": ["Comedy, Drama"]})
    movies = Catalogue(table, types={"genres": "multi"}, separator=", ")
    assert movies.column("genres").to_pylist() == [["Comedy", "Drama"]]


VECTORS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([*VECTORS[:2], None], dtype=object),
        pa.array([[1.0, 2, 3], [4, 5, 6], None]),
        pa.array([[1, 2, 3], [4, 5, 6], None], pa.list_(pa.int8(), 3)),
        pa.array([[1.0, 2, 3], [4, 5, 6], None], pa.large_list(pa.float16())),
    ],
)
def test_lists_of_one_size_are_vectors_and_one_may_be_missing(column, tmp_path):
    items = Catalogue(pa.table({"item": [1, 2, 3], "image": column}))
    assert items.types == {"image": "vector"}
    assert items.table["image"].type == pa.list_(pa.float32(), 3)
    matrix, present = vector_matrix(items.lookup([2, 9, 1, 3])["image"])
    assert present.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(matrix[present], VECTORS[[1, 0]])
    assert not matrix[~present].any()
    items.save(tmp_path / "items.parquet")
    assert Catalogue.load(tmp_path / "items.parquet").table.equals(items.table)
    assert items.describe(1) == "1"
    assert items.describe(1, columns=["image"]) == "1.00/2.00/3.00"


def test_arrays_become_vectors(tmp_path):
    items = Catalogue(pa.table({"item": [1, 2, 3], "price": [1, 2, 3]}))
    seen = items.with_vectors("image", VECTORS)
    assert seen.types == {"price": "numeric", "image": "vector"}
    assert seen.with_vectors("price", VECTORS).types == {"image": "vector", "price": "vector"}
    assert "image" not in items.types
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS.reshape(3, 3, 1))
    again = Catalogue(pa.table({"item": [1, 2, 3], "price": [1, 2, 3], "image": tensors}))
    assert again.table.equals(seen.table)
    with pytest.raises(DataError, match="2 vectors were given for 3 rows"):
        items.with_vectors("image", VECTORS[:2])
    with pytest.raises(DataError, match=r"shape \(3,\); vectors have \[rows, width\]"):
        items.with_vectors("image", VECTORS[0])
    with pytest.raises(DataError, match="'image' holds 1 numbers that are missing, NaN or inf"):
        items.with_vectors("image", np.where(VECTORS == 5, np.nan, VECTORS))


def test_lists_of_many_sizes_or_of_words_are_no_vectors():
    table = pa.table({"item": [1, 2], "x": [[1.5], [2.5, 3.5]], "tags": [["a"], ["b"]]})
    assert Catalogue(table).types == {"x": "multi", "tags": "multi"}
    with pytest.raises(DataError, match="1 of 2 vectors have another size than the first, 1, such"):
        Catalogue(table, types={"x": "vector"})
    with pytest.raises(DataError, match=r"'tags' holds list<.*>; vectors are lists of numbers"):
        Catalogue(table, types={"tags": "vector"})
    for empty in (pa.nulls(2), pa.nulls(2, pa.list_(pa.float32()))):
        with pytest.raises(DataError, match="'x' is empty, so the size of its vectors"):
            Catalogue(table.set_column(1, "x", empty), types={"x": "vector"})


def test_a_lookup_has_a_row_for_every_id_in_their_order(items):
    found = items.lookup(["C", "Z", "A", None, "C"])
    assert found["item"].to_pylist() == ["C", "Z", "A", None, "C"]
    assert found["price"].to_pylist() == [3.0, None, 1.5, None, 3.0]
    assert found["tags"].to_pylist() == [["c"], None, ["a", "b"], None, ["c"]]
    chunked = items.lookup(pa.chunked_array([["C"], ["A"]]))
    assert chunked["year"].to_pylist() == [2003, 2001]
    assert items.lookup([]).num_rows == 0


def test_a_table_with_no_rows_or_no_features_is_looked_up_too():
    empty = FeatureTable.from_pandas(pd.DataFrame({"k": [], "x": []}), key="k")
    assert empty.lookup([1, 2]).to_pylist() == [{"k": 1, "x": None}, {"k": 2, "x": None}]
    only_key = FeatureTable(pa.table({"k": [1]}), key="k")
    assert only_key.lookup([1, 2]).to_pylist() == [{"k": 1}, {"k": 2}]
    assert only_key.describe(1) == "1"


def test_ids_of_another_type_are_an_error_and_not_a_miss(items):
    with pytest.raises(
        MixedTypeError, match=r"Catalogue holds ids of type string.*int64 \(first 7"
    ):
        items.lookup([7])
    assert "A" in items
    assert "Z" not in items


def test_items_are_described_in_words(items):
    assert items.describe("A") == "White blouse, X, 1.50, 2001, a/b, 2024-01-01, true, 1"
    assert items.describe(["B", "Z"], columns=["title", "brand", "price"]) == [
        "Long red skirt",
        "Z",
    ]
    assert items.describe("C", columns=["since"]) == "2024-01-02 10:00:00"
    by_number = FeatureTable(pa.table({"k": [1, 2], "x": ["one", "two"]}), key="k")
    assert by_number.describe(np.int64(2)) == "two"
    assert by_number.describe(np.array([2, 3])) == ["two", "3"]
    with pytest.raises(MissingColumnError, match="no column 'colour'"):
        items.describe("A", columns=["colour"])


def test_the_key_may_be_the_index_of_a_frame(frame):
    assert Catalogue.from_pandas(frame.set_index("sku"), key="sku").ids.to_pylist() == [
        "A",
        "B",
        "C",
    ]


def test_a_key_that_stands_twice_is_counted(frame):
    with pytest.raises(DataError, match=r"2 of 5 rows repeat a 'sku' .*first 'A'.*drop_duplicates"):
        Catalogue.from_pandas(pd.concat([frame, frame[:2]]), key="sku")


def test_a_row_without_a_key_is_counted(frame):
    with pytest.raises(NullValueError, match="1 of 3 rows have no 'brand'"):
        Catalogue.from_pandas(frame, key="brand")


@pytest.mark.parametrize(
    ("types", "error", "message"),
    [
        ({"brand": "colour"}, ValueError, "'brand' has the type 'colour'"),
        ({"colour": "text"}, MissingColumnError, "no column 'colour'.*'title'"),
        ({"brand": "numeric"}, DataError, "'brand' holds values that are no numbers"),
        ({"year": "date"}, DataError, "'year' holds numbers, which may count days"),
        ({"title": "date"}, DataError, "'White blouse' in row 0"),
        ({"tags": "categorical"}, DataError, "'tags' holds lists"),
    ],
)
def test_types_that_do_not_fit_are_refused(frame, types, error, message):
    with pytest.raises(error, match=message):
        Catalogue.from_pandas(frame, key="sku", types=types)


def test_values_that_are_none_are_refused():
    with pytest.raises(DataError, match="1 infinite"):
        Catalogue(pa.table({"item": [1], "price": [np.inf]}))
    with pytest.raises(MixedTypeError, match=r"'x' .*1 int \(first 1\), 1 str \(first 'a'\)"):
        Catalogue.from_pandas(pd.DataFrame({"item": [1, 2], "x": [1, "a"]}))
    with pytest.raises(DataError, match="'k' gets the name 'item', which another column has"):
        Catalogue(pa.table({"k": [1], "item": [2]}), key="k")
    with pytest.raises(TypeError, match="key is missing"):
        FeatureTable(pa.table({"k": [1]}))


def test_large_integers_stay_exact():
    table = Catalogue(pa.table({"item": [1], "ean": [2**60 + 1]}))
    assert table.column("ean").to_pylist() == [2**60 + 1]


def test_a_saved_table_is_loaded_with_its_types(items, tmp_path):
    items.save(tmp_path / "items.parquet")
    loaded = Catalogue.load(tmp_path / "items.parquet")
    assert loaded.table.equals(items.table)
    assert loaded.schema == items.schema == json.loads(json.dumps(items.schema))
    assert loaded.describe("A") == items.describe("A")


def test_times_with_a_zone_are_saved_as_the_same_instant(tmp_path):
    seen = pd.to_datetime(["2024-01-01 08:00"]).tz_localize("Asia/Shanghai")
    users = UserTable.from_pandas(pd.DataFrame({"user": [1], "seen": seen}))
    users.save(tmp_path / "users.parquet")
    instant = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    assert UserTable.load(tmp_path / "users.parquet").column("seen").to_pylist() == [instant]


def test_what_was_not_saved_so_is_not_loaded(items, tmp_path):
    path = tmp_path / "items.parquet"
    with pytest.raises(DataFileError, match="There is no file"):
        Catalogue.load(path)
    items.save(path)
    with pytest.raises(DataFileError, match="holds a table by item, no UserTable"):
        UserTable.load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFileError, match="truncated"):
        Catalogue.load(path)
    pq.write_table(pa.table({"item": [1]}), path)
    with pytest.raises(DataFileError, match="from_parquet"):
        Catalogue.load(path)


def test_a_full_disk_leaves_the_old_table(items, tmp_path, monkeypatch):
    path = tmp_path / "items.parquet"
    items.save(path)

    def full(table, where, **options):
        where.write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        items.save(path)
    assert Catalogue.load(path).table.equals(items.table)


def test_the_printed_table_tells_types_and_what_is_missing(items):
    lines = repr(items).splitlines()
    assert lines[:3] == [
        "Catalogue of 3 rows by item",
        "  title  text",
        "  brand  categorical, 1 missing",
    ]


def test_newer_rows_replace_older_ones_and_join_the_rest(items):
    newer = Catalogue(
        pa.table(
            {
                "item": ["B", "D"],
                "price": [7, None],
                "brand": ["Z", "5"],
                "tags": [["q"], None],
                "colour": ["red", "blue"],
            }
        )
    )
    joined = items.updated(newer)
    assert joined.ids.to_pylist() == ["A", "C", "B", "D"]
    assert joined.column("price").to_pylist() == [1.5, 3.0, 7.0, None]
    assert joined.column("title").to_pylist() == ["White blouse", "Blue jeans", None, None]
    assert joined.column("colour").to_pylist() == [None, None, "red", "blue"]
    assert joined.types == items.types | {"colour": "categorical"}
    assert joined.describe("B") == "Z, 7.00, q, red"
    with pytest.raises(MixedTypeError, match="holds ids of type string"):
        items.updated(Catalogue(pa.table({"item": [1], "price": [2]})))
    with pytest.raises(DataError, match="'price' holds values that are no numbers"):
        items.updated(Catalogue(pa.table({"item": ["E"], "price": ["cheap"]})))
    zoned = pa.array([datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)])
    with pytest.raises(DataError, match="features of the two tables do not fit"):
        items.updated(Catalogue(pa.table({"item": ["E"], "since": zoned})))
    seen = items.with_vectors("image", VECTORS)
    with pytest.raises(DataError, match="1 of 4 vectors have another size than the first"):
        seen.updated(Catalogue(pa.table({"item": ["E"], "image": [[1.0, 2.0]]})))
