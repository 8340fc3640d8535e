import numpy as np
import pyarrow as pa
import pytest

from tfrec_llm.data import Catalogue, Vocabulary
from tfrec_llm.errors import DataError, MissingColumnError
from tfrec_llm.reranking.item_columns import ItemColumns

TABLE = pa.table(
    {
        "item": ["a", "b", "c", "d", "e"],
        "kind": ["top", "skirt", "top", None, "top"],
        "usd": [3.0, 4.0, 3.0, 5.0, None],
        "tags": [["red", "new", "red"], ["new"], [], None, ["red", "new", "sale"]],
        "title": ["White long blouse", "long skirt", "A white BLOUSE", "Red hat", "Blue hat"],
        "image": [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], None, [0.0, 2.0]],
    }
)
TYPES = {"title": "text"}
# Another order than the catalogue's, and an item that it does not hold.
VOCABULARY = Vocabulary(["e", "x", "c", "b", "a", "d"])


@pytest.fixture
def columns():
    return ItemColumns(Catalogue(TABLE, types=TYPES), VOCABULARY)


def jaccard(one, other):
    one, other = set(one or []), set(other or [])
    return len(one & other) / len(one | other) if one | other else 0.0


def cosine(one, other):
    if one is None or other is None or not any(one) or not any(other):
        return 0.0
    return np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)


def equal(one, other):
    return float(one is not None and one == other)


@pytest.mark.parametrize(
    ("name", "alike", "read"),
    [
        ("kind", equal, None),
        ("usd", equal, None),
        ("tags", jaccard, None),
        ("title", jaccard, lambda text: text and text.lower().split()),
        ("image", cosine, None),
    ],
)
def test_items_are_as_alike_as_their_column_says(columns, name, alike, read):
    values = dict(zip(TABLE["item"].to_pylist(), TABLE[name].to_pylist(), strict=True))
    values = [values.get(item) for item in VOCABULARY.ids.to_pylist()]
    if read is not None:
        values = [read(value) for value in values]
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(6)[:5] for _ in range(40)])
    among = columns.likeness(name).among(items)
    for places in (rng.integers(5, size=40), np.zeros(40, int)):
        expected = [
            [alike(values[row[place]], values[item]) for item in row]
            for row, place in zip(items, places, strict=True)
        ]
        np.testing.assert_allclose(among.to(places), expected, atol=1e-6)


def test_quotas_count_by_one_value(columns):
    with pytest.raises(DataError, match=r"'tags' holds lists.*Add a column"):
        columns.same("tags")
    with pytest.raises(MissingColumnError, match="no column 'brand'"):
        columns.same("brand")


def test_values_are_those_of_the_catalogue_or_the_default(columns):
    everything = np.arange(len(VOCABULARY))
    found = columns.values("usd", default=9.0, items=everything)
    assert found.tolist() == [9, 9, 3, 4, 3, 5]
    assert columns.values("usd", default=None, items=everything[2:])[2:].tolist() == [3, 4, 3, 5]
    with pytest.raises(DataError, match="2 of 6 items have no value in 'usd', first 'e'"):
        columns.values("usd", default=None, items=everything)
    with pytest.raises(DataError, match="'kind' is a categorical column"):
        columns.values("kind", default=None, items=everything)


def test_negative_values_are_refused_where_they_count():
    table = pa.table({"item": ["a", "b", "c"], "usd": [1.0, -2.0, -1.0]})
    columns = ItemColumns(Catalogue(table), Vocabulary(["a", "b", "c"]))
    with pytest.raises(DataError, match="2 of 3 items have a negative value in 'usd', first 'b'"):
        columns.values("usd", default=0.0, items=np.arange(3))
    columns.values("usd", default=0.0, items=np.array([0]))


def test_without_a_catalogue_columns_are_an_error():
    columns = ItemColumns(None, VOCABULARY)
    for ask in (
        lambda: columns.same("kind"),
        lambda: columns.likeness("kind"),
        lambda: columns.values("usd", default=None, items=np.arange(2)),
    ):
        with pytest.raises(DataError, match="there is no catalogue"):
            ask()
