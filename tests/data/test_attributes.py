import numpy as np
import pyarrow as pa
import pytest

from tfrec_llm.data import Catalogue, Vocabulary, item_attributes, load
from tfrec_llm.errors import DataError, MissingColumnError

ITEMS = Catalogue(
    pa.table(
        {
            "item": ["A", "B", "C", "D", "Z"],
            "kind": ["top", "top", "skirt", None, "top"],
            "tags": [["new", "new"], ["new", None, "red"], None, [], ["blue"]],
            "title": ["Red top", "A top", "Skirt", None, "Blue, blue top"],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    ),
    types={"title": "text"},
)
VOCABULARY = Vocabulary(["D", "C", "B", "A", "unknown"])


def by_item(attributes):
    """The names of every item's attributes, by item."""
    found = {}
    for index, row in enumerate(attributes.indexes):
        held = row[row > 0]
        assert (row[len(held) :] == 0).all(), "zeros stand behind the attributes"
        assert (np.diff(held) > 0).all(), "attributes rise"
        (raw,) = VOCABULARY.decode([index])
        if raw is None:
            assert not row.any(), "reserved indexes have none"
        else:
            found[raw] = {attributes.names[number - 1] for number in held}
    return found


def test_categories_and_tags_are_attributes_of_the_items_of_a_vocabulary():
    attributes = item_attributes(ITEMS, VOCABULARY, min_count=1)
    assert by_item(attributes) == {
        "A": {"kind=top", "tags=new"},
        "B": {"kind=top", "tags=new", "tags=red"},
        "C": {"kind=skirt"},
        "D": set(),
        "unknown": set(),
    }
    assert attributes.indexes.dtype == np.int32
    # The most frequent first; what only an item outside of the vocabulary has is none.
    assert set(attributes.names[:2]) == {"kind=top", "tags=new"}
    assert "tags=blue" not in attributes.names


def test_rare_attributes_are_left_out_and_the_most_frequent_are_kept():
    attributes = item_attributes(ITEMS, VOCABULARY, min_count=2)
    assert set(attributes.names) == {"kind=top", "tags=new"}
    one = item_attributes(ITEMS, VOCABULARY, min_count=1, max_attributes=1)
    assert one.indexes.shape == (VOCABULARY.size, 1)
    assert by_item(one)["B"] <= {"kind=top", "tags=new"}


def test_the_words_of_a_text_are_attributes_where_it_is_named():
    attributes = item_attributes(ITEMS, VOCABULARY, columns=["title"], min_count=1)
    assert by_item(attributes)["A"] == {"title=red", "title=top"}
    assert by_item(attributes)["D"] == set()


def test_what_gives_no_attributes_is_told():
    with pytest.raises(DataError, match=r"categorical, multi, text features, not of \{'price'"):
        item_attributes(ITEMS, VOCABULARY, columns=["price"])
    with pytest.raises(MissingColumnError, match="colour"):
        item_attributes(ITEMS, VOCABULARY, columns=["colour"])
    with pytest.raises(DataError, match="is that of 9 of the vocabulary's 5 items"):
        item_attributes(ITEMS, VOCABULARY, min_count=9)
    with pytest.raises(ValueError, match="must be positive, got 0 and 16"):
        item_attributes(ITEMS, VOCABULARY, min_count=0)


def test_a_real_catalogue_has_an_attribute_a_category():
    log = load("eshop")
    vocabulary = Vocabulary.fit(log.item)
    attributes = item_attributes(log.catalogue, vocabulary, columns=["category", "colour"])
    assert attributes.indexes.shape == (vocabulary.size, 2)
    assert (attributes.indexes[3:, 0] > 0).all()
    (row,) = vocabulary.encode(["A13"])
    names = {attributes.names[number - 1] for number in attributes.indexes[row]}
    assert names == {"category=trousers", "colour=beige"}
