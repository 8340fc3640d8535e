import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfrec_llm.data import FeatureEncoding, FeatureSpec, FeatureTable
from tfrec_llm.data.words import words
from tfrec_llm.errors import DataError, MissingColumnError

DAYS = pd.to_datetime(["2024-01-01", "2024-01-11", None, "2024-03-01"])
VECTORS = np.array([[1, 9], [3, 9], [5, 9], [7, 9]], np.float32)


@pytest.fixture
def items():
    table = pa.table(
        {
            "item": ["A", "B", "C", "D"],
            "brand": ["X", "Y", None, "Y"],
            "tags": [["a", "b", "b"], None, ["b", None, "c"], []],
            "price": [1.0, None, -3.0, 11.0],
            "title": ["Red SKIRT", "red, red!", None, "--"],
            "since": DAYS,
        }
    )
    table = FeatureTable(table, key="item", types={"title": "text"})
    return table.with_vectors("image", VECTORS)


def test_every_kind_becomes_its_arrays(items):
    encoding = FeatureEncoding.fit(items)
    assert encoding.specs == (
        FeatureSpec("brand", "categorical", 4, 1),
        FeatureSpec("tags", "multi", 5, 3),
        FeatureSpec("price", "numeric", 2, 2),
        FeatureSpec("title", "text", 4, 2),
        FeatureSpec("since", "date", 2, 2),
        FeatureSpec("image", "vector", 2, 2),
    )
    arrays = encoding.encode(items)
    assert arrays["brand"].tolist() == [3, 2, 0, 2]
    # b is met most often, then a before c.
    assert arrays["tags"].tolist() == [[3, 2, 2], [0, 0, 0], [2, 4, 0], [0, 0, 0]]
    assert arrays["title"].tolist() == [[2, 3], [2, 2], [0, 0], [0, 0]]
    assert arrays["price"][:, 1].tolist() == [0, 1, 0, 0]
    assert arrays["price"][1, 0] == 0
    assert arrays["since"][:, 1].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(arrays["image"], (VECTORS - [4, 9]) / np.sqrt(2.5), rtol=1e-6)
    kinds = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    for spec in encoding.specs:
        dtype = np.dtype("int32" if spec.is_index else "float32")
        assert kinds[spec.name] == (dtype, (4, *spec.shape))


def test_what_training_did_not_hold_is_unseen_and_who_is_not_known_has_nothing(items):
    encoding = FeatureEncoding.fit(items, ids=["A", "C"])
    arrays = encoding.encode(items, ids=["B", "Z", "A"])
    assert arrays["brand"].tolist() == [1, 0, 2]
    assert arrays["tags"].tolist() == [[0, 0, 0], [0, 0, 0], [3, 2, 2]]
    assert arrays["title"].tolist() == [[2, 2], [0, 0], [2, 3]]
    for name, array in encoding.missing(1).items():
        np.testing.assert_array_equal(arrays[name][1:2], array)
    assert encoding.missing(2)["price"].tolist() == [[0, 1], [0, 1]]


def test_only_training_rows_are_learned_from(items):
    encoding = FeatureEncoding.fit(items, ids=["A", "C"])
    changed = items.table.set_column(3, "price", pa.array([1.0, 5e9, -3.0, None]))
    changed = FeatureTable(changed, key="item", types=items.types)
    again = FeatureEncoding.fit(changed, ids=["A", "C"])
    assert again.get_config() == encoding.get_config()


def test_long_tails_and_outliers_leave_the_rest_apart():
    rng = np.random.default_rng(0)
    prices = np.exp(rng.normal(2, 1, 1000))
    prices[:2] = 1e9, -1e9
    numbers = FeatureEncoding.fit({"price": prices}).encode({"price": prices})["price"][:, 0]
    rank = np.argsort(np.argsort(prices))
    np.testing.assert_array_equal(np.argsort(np.argsort(numbers, kind="stable"))[2:], rank[2:])
    assert numbers[0] == 5
    assert numbers[1] == -5
    low, high = np.quantile(numbers, [0.05, 0.95])
    assert high - low > 1
    plain = (prices - prices.mean()) / prices.std()
    assert np.ptp(np.quantile(plain, [0.05, 0.95])) < 1e-6


def test_numbers_are_standardised_by_the_formula():
    values = np.array([0.0, 1, 2, 3, 10])
    bent = np.arcsinh((values - 2) / 2)
    encoding = FeatureEncoding.fit({"x": values})
    found = encoding.encode({"x": [10, 4.5, None]})["x"]
    expected = (np.arcsinh(np.array([4, 1.25])) - bent.mean()) / bent.std()
    np.testing.assert_allclose(found[:2, 0], expected, rtol=1e-6)
    assert found[2].tolist() == [0, 1]
    whole = FeatureEncoding.fit({"x": values.astype(int)})
    assert whole.get_config() == encoding.get_config()


def test_numbers_that_mostly_agree_are_told_apart():
    counts = np.array([0] * 96 + [1, 2, 3, 400])
    found = FeatureEncoding.fit({"x": counts}).encode({"x": [0, 1, 2, 3]})["x"][:, 0]
    assert (np.diff(found) > 0.2).all()


def test_days_count_wherever_they_begin():
    days = FeatureEncoding.fit({"since": DAYS}).encode({"since": DAYS})["since"]
    zoned = DAYS.tz_localize("UTC")
    later = FeatureEncoding.fit({"since": zoned + pd.Timedelta("900D")})
    np.testing.assert_allclose(
        later.encode({"since": zoned + pd.Timedelta("900D")})["since"], days, atol=1e-5
    )
    numbers = FeatureEncoding.fit({"n": [0, 10, 60]}).encode({"n": [0, 10, None, 60]})["n"]
    np.testing.assert_allclose(days, numbers, atol=1e-6)


def test_what_never_changes_gives_zeros():
    columns = {"x": [7, 7, None], "image": np.ones((3, 2))}
    encoding = FeatureEncoding.fit(columns)
    found = encoding.encode({"x": [7, 8, None], "image": 2 * np.ones((3, 2))})
    assert found["x"].tolist() == [[0, 0], [0, 0], [0, 1]]
    assert not found["image"].any()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric", [np.nan, None]),
        ("categorical", [None, None]),
        ("multi", [[], None]),
        ("text", ["?", None]),
        ("date", [None, None]),
        ("vector", pa.nulls(2, pa.list_(pa.float32(), 2))),
    ],
)
def test_a_feature_without_any_value_is_an_error(kind, values):
    with pytest.raises(DataError, match=r"'x' has no value in the 2 rows.*columns=\[...\]"):
        FeatureEncoding.fit({"x": values}, types={"x": kind})
    filled = {"categorical": ["a"], "multi": [["a"]], "text": ["a"], "vector": np.ones((1, 2))}
    filled |= {"numeric": [1.0], "date": DAYS[:1]}
    encoding = FeatureEncoding.fit({"x": filled[kind]}, types={"x": kind})
    # Where a model is asked, all may be missing.
    found = encoding.encode({"x": [None, None]})
    np.testing.assert_array_equal(found["x"], encoding.missing(2)["x"])


def test_rare_values_stand_for_those_to_come():
    encoding = FeatureEncoding.fit(
        {"x": ["a", "b", "a"], "t": [["u"], ["v", "u"], []]}, min_count=2
    )
    arrays = encoding.encode({"x": ["a", "b", "z"], "t": [["u", "v"], ["z"], None]})
    assert arrays["x"].tolist() == [2, 1, 1]
    assert arrays["t"].tolist() == [[2, 1], [1, 0], [0, 0]]


def test_the_first_values_and_words_are_read():
    columns = {"t": [["a", "b", "c"]] * 2, "s": ["one two three", "four"]}
    encoding = FeatureEncoding.fit(columns, types={"s": "text"}, max_values=2, max_words=2)
    arrays = encoding.encode({"t": [["c", "b", "a"], ["z"]], "s": ["two four one", ""]})
    assert arrays["t"].tolist() == [[4, 3], [1, 0]]
    assert arrays["s"].tolist() == [[3, 5], [0, 0]]


def test_columns_of_a_log_are_encoded_as_they_come(items):
    frame = pd.DataFrame({"hour": [1, 2, 3], "device": ["tv", "web", None], "n": [1, np.nan, 2]})
    options = {"columns": ["device", "hour", "n"], "types": {"hour": "categorical"}}
    fitted = [
        FeatureEncoding.fit(columns, **options)
        for columns in (frame, pa.Table.from_pandas(frame), frame.to_dict("list"))
    ]
    chunks = pa.concat_tables([pa.table(frame[:1]), pa.table(frame[1:])])
    for encoding in fitted:
        for columns in (frame, chunks, frame.to_dict("list")):
            arrays = encoding.encode(columns)
            assert arrays["hour"].tolist() == [2, 3, 4]
            assert arrays["device"].tolist() == [2, 3, 0]
            assert arrays["n"][:, 1].tolist() == [0, 1, 0]
    lists = pa.chunked_array([pa.array([["a"], None]), pa.array([["b", "a"]])])
    found = FeatureEncoding.fit({"t": lists}).encode({"t": lists.slice(1)})
    assert found["t"].tolist() == [[0, 0], [3, 2]]


def test_an_encoding_goes_through_json_and_encodes_equally(items):
    encoding = FeatureEncoding.fit(items)
    again = FeatureEncoding.from_config(json.loads(json.dumps(encoding.get_config())))
    assert again.specs == encoding.specs
    assert repr(again) == repr(encoding)
    assert "  title  text, size 4, width 2" in repr(encoding)
    expected = encoding.encode(items)
    for name, array in again.encode(items).items():
        np.testing.assert_array_equal(array, expected[name])


def test_features_that_do_not_fit_what_was_learned_are_told(items):
    encoding = FeatureEncoding.fit(items)
    with pytest.raises(MissingColumnError, match="no column 'brand'"):
        encoding.encode(FeatureTable(items.table.drop_columns(["brand"]), key="item"))
    with pytest.raises(MissingColumnError, match="no column 'colour'"):
        FeatureEncoding.fit(items, columns=["colour"])
    with pytest.raises(DataError, match="'price' holds values that are no numbers"):
        encoding.encode(items.table.set_column(3, "price", pa.array(["free"] * 4)))
    with pytest.raises(DataError, match="'image': The vectors have 3 numbers"):
        encoding.encode(items.with_vectors("image", np.ones((4, 3))))
    with pytest.raises(DataError, match="'price' holds 1 infinite"):
        encoding.encode(items.table.set_column(3, "price", pa.array([np.inf, 1, 1, 1])))
    with pytest.raises(DataError, match="no feature besides its key"):
        FeatureEncoding.fit(FeatureTable(pa.table({"k": [1]}), key="k"))
    with pytest.raises(ValueError, match="max_words must be positive, got 0"):
        FeatureEncoding.fit(items, max_words=0)
    with pytest.raises(ValueError, match="ids are for a FeatureTable"):
        encoding.encode(items.table, ids=["A"])
    with pytest.raises(ValueError, match="'x' has the kind 'colour'"):
        FeatureSpec("x", "colour", 3)


def test_a_feature_keeps_its_kind_where_a_few_rows_look_otherwise(items):
    encoding = FeatureEncoding.fit(items)
    few = FeatureTable(
        pa.table(
            {
                "item": ["N"],
                "brand": [7],
                "tags": [None],
                "price": [2],
                "title": ["skirt"],
                "since": ["2024-01-01"],
                "image": [[1.0, 9]],
                "colour": ["red"],
            }
        ),
        key="item",
    )
    arrays = encoding.encode(few)
    assert arrays["brand"].tolist() == [1]
    assert arrays["title"].tolist() == [[3, 0]]
    assert not arrays["tags"].any()
    for name in ("since", "image"):
        np.testing.assert_array_equal(arrays[name], encoding.encode(items)[name][:1])


def test_words_are_found_in_any_script():
    texts = [
        "Ärger im CAFÉ",
        "\uff26\uff35\uff2c\uff2c width",
        "women\u2019s",
        "红色 连衣裙A4",
        "नमस्ते दुनिया",
        "a_b",
        "",
        None,
    ]
    assert words(pa.array(texts)).to_pylist() == [
        ["ärger", "im", "café"],
        ["full", "width"],
        ["womens"],
        ["红", "色", "连", "衣", "裙", "a4"],
        ["नमस्ते", "दुनिया"],
        ["a", "b"],
        [],
        None,
    ]


def test_large_tables_are_encoded_by_columns_and_not_by_rows():
    rng = np.random.default_rng(0)
    rows = 100_000
    lists = np.split(rng.integers(0, 50, 3 * rows).astype(str), rows)
    columns = {
        "kind": pa.array(rng.integers(0, 500, rows).astype(str)),
        "tags": pa.array([list(one) for one in lists]),
        "price": pa.array(rng.normal(size=rows)),
    }
    encoding = FeatureEncoding.fit(columns)
    arrays = encoding.encode(columns)
    assert arrays["tags"].shape == (rows, 3)
    assert (arrays["kind"] >= 2).all()
