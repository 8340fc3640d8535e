"""What people call items: names, categories and prices out of a catalogue, and search by words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue

# Words in the names of columns that tell what a column is, the surest first; and its types.
_NAMES = ("title", "name", "product", "description"), ("text", "categorical")
_CATEGORIES = ("category", "kind", "type", "department"), ("categorical", "multi")
_PRICES = ("price", "cost", "amount"), ("numeric",)

# Words of a search that count.
_WORDS = 8


@dataclass(frozen=True)
class ItemFact:
    """What is known of an item.

    Attributes:
        item: Raw id.
        name: What it is called; None where the catalogue does not tell.
        category: Its category, or None.
        price: Its price, in the catalogue's currency, or None.
        features: All features but vectors, by name, as JSON has them; empty for an unknown item.
    """

    item: Any
    name: str | None
    category: str | None
    price: float | None
    features: dict[str, Any]


class ItemFacts:
    """Tells of items what a catalogue knows, and finds items by words.

    Which columns hold name, category and price is told by the columns' names and types, such as
    `title`, `category` and `price`.

    Args:
        vocabulary: The items that may be found.
        catalogue: What is known of them; None where nothing is.

    Example:
        >>> table = pa.table({"item": ["a", "b"], "title": ["Red hat", "Blue hat"],
        ...                   "price": [9.5, None]})
        >>> catalogue = tfrec_llm.data.Catalogue(table, types={"title": "text"})
        >>> facts = ItemFacts(Vocabulary.fit(["a", "b", "b"]), catalogue)
        >>> facts.of(["a"])[0].name, facts.of(["a"])[0].price
        ('Red hat', 9.5)
        >>> facts.search("hat", 5), facts.search("HAT red", 5)
        (['b', 'a'], ['a'])
    """

    def __init__(self, vocabulary: Vocabulary, catalogue: "Catalogue | None" = None):
        self._vocabulary = vocabulary
        self._catalogue = catalogue
        types: dict[str, Any] = dict(catalogue.types) if catalogue is not None else {}
        self._told = [name for name, kind in types.items() if kind != "vector"]
        self._name = _column(types, *_NAMES)
        self._category = _column(types, *_CATEGORIES)
        self._price = _column(types, *_PRICES)

    def of(self, items: Sequence[Any]) -> list[ItemFact]:
        """Returns what is known of items.

        Args:
            items: Raw ids, of the vocabulary's type.
        """
        if self._catalogue is None or not items:
            return [ItemFact(item, None, None, None, {}) for item in items]
        table = self._catalogue.lookup(list(items)).select(self._told)
        return [self._fact(item, row) for item, row in zip(items, table.to_pylist(), strict=True)]

    def search(self, text: str, limit: int) -> list[Any]:
        """Returns the items whose id or features hold all words of a text, the most frequent first.

        Args:
            text: Words or parts of words, in any case; all items where it is empty.
            limit: Most items.
        """
        found = np.ones(len(self._vocabulary), bool)
        for word in text.lower().split()[:_WORDS]:
            found &= pc.match_substring(self._texts, word).to_numpy(zero_copy_only=False)
        places = np.flatnonzero(found)
        counts = self._vocabulary.counts[NUM_RESERVED:][places]
        places = places[np.argsort(-counts, kind="stable")[:limit]]
        return self._vocabulary.decode(places + NUM_RESERVED).tolist()

    @cached_property
    def _texts(self) -> pa.Array:
        """The words of each item in lower case: its id and its features."""
        ids = self._vocabulary.ids
        parts: list[Any] = [ids.cast(pa.string())]
        if self._catalogue is not None:
            table = self._catalogue.lookup(ids)
            for name in self._told:
                column = table[name].combine_chunks()
                if pa.types.is_list(column.type):
                    column = pc.binary_join(column.cast(pa.list_(pa.string())), " ")
                parts.append(column.cast(pa.string()))
        joined = pc.binary_join_element_wise(
            *parts, " ", null_handling="replace", null_replacement=""
        )
        return pc.utf8_lower(joined)

    def _fact(self, item: Any, row: dict[str, Any]) -> ItemFact:
        features = {name: _plain(value) for name, value in row.items() if value is not None}
        category = features.get(self._category or "")
        price = features.get(self._price or "")
        return ItemFact(
            item,
            name=_text(features.get(self._name or "")),
            category=_text(category),
            price=None if price is None else float(price),
            features=features,
        )


def _column(types: Mapping[str, Any], words: Sequence[str], kinds: Sequence[str]) -> str | None:
    """Returns the column whose name is one of the words; else ends with one; else holds one."""
    fitting = [name for name, kind in types.items() if kind in kinds]
    for fits in (str.__eq__, str.endswith, str.__contains__):
        for word in words:
            for name in fitting:
                if fits(name.lower(), word):
                    return name
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return None if value is None else str(value)


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it: no infinite numbers, times as text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if hasattr(value, "isoformat") else value
