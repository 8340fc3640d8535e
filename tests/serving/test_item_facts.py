import datetime

import pyarrow as pa
import pytest

import tfrec_llm as tr
from tfrec_llm.serving.item_facts import ItemFacts


@pytest.fixture(scope="module")
def facts():
    table = pa.table(
        {
            "item": [3, 1, 2],
            "price_above_mean": [1.0, 0.0, 0.0],
            "unit_price": [2.5, float("nan"), None],
            "product_type": ["hat", "glove", None],
            "title": ["Ärmelschoner, RED", None, "red (blue)"],
            "tags": [["warm", "soft"], [], None],
            "since": [datetime.datetime(2024, 5, 6), None, None],
            "picture": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
        }
    )
    types = {"title": "text", "picture": "vector", "tags": "multi", "product_type": "categorical"}
    vocabulary = tr.data.Vocabulary.fit([1, 1, 1, 2, 2, 4, 3])
    return ItemFacts(vocabulary, tr.data.Catalogue(table, types=types))


def test_columns_are_told_by_their_names(facts):
    first, second, unknown = facts.of([3, 1, 99])
    assert (first.name, first.category, first.price) == ("Ärmelschoner, RED", "hat", 2.5)
    assert first.features["since"].startswith("2024-05-06")
    assert first.features["tags"] == ["warm", "soft"]
    assert "picture" not in first.features
    assert second.price is None
    assert (unknown.name, unknown.features) == (None, {})


def test_items_are_found_by_words_the_frequent_first(facts):
    assert facts.search("", 10) == [1, 2, 4, 3]
    assert facts.search("", 2) == [1, 2]
    assert facts.search("red", 10) == [2, 3]
    assert facts.search("RED ärmel", 10) == [3]
    assert facts.search("(blue", 10) == [2]
    assert facts.search("warm 3", 10) == [3]
    assert facts.search(".*", 10) == []


def test_without_a_catalogue_ids_are_all_there_is():
    facts = ItemFacts(tr.data.Vocabulary.fit(["A13", "B4", "B4"]))
    assert facts.search("a1", 5) == ["A13"]
    assert facts.of(["A13"])[0].name is None
