"""What items are, as sets of attributes a model can predict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.columns import check_columns
from tfrec_llm.data.feature_table import FeatureTable
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.data.words import words
from tfrec_llm.errors import DataError

_KINDS = ("categorical", "multi", "text")


@dataclass(frozen=True)
class ItemAttributes:
    """The attributes of every index of a vocabulary.

    Attributes:
        indexes: int32 `[vocab_size, width]`, the attributes of an item, each once, from 1 on,
            rising; 0 behind them.
        names: What they are, such as `"colour=red"`; attribute 1 is `names[0]`.
    """

    indexes: np.ndarray
    names: tuple[str, ...]


def item_attributes(
    catalogue: FeatureTable,
    vocabulary: Vocabulary,
    *,
    columns: Sequence[str] | None = None,
    min_count: int = 2,
    max_attributes: int = 16,
) -> ItemAttributes:
    """Makes one list of attributes of the categories, tags and words of a catalogue.

    Args:
        catalogue: What is known of the items. Those it does not hold have no attributes.
        vocabulary: The items, such as those of train.
        columns: Features that are categorical, multi or text, whose words are attributes then;
            all categorical and multi ones where None.
        min_count: Attributes of fewer items are left out.
        max_attributes: Most attributes of an item, the most frequent ones.

    Returns:
        The attributes, the most frequent first.

    Raises:
        MissingColumnError: If a column is not in the catalogue.
        DataError: If a column is of another type, or no attribute is left.

    Example:
        >>> items = pa.table({"item": ["A13", "B4"], "kind": ["top", "top"], "tag": ["x|y", "y"]})
        >>> items = tfrec_llm.data.Catalogue(items, types={"tag": "multi"})
        >>> attributes = item_attributes(items, Vocabulary(["B4", "A13"]))
        >>> attributes.names, attributes.indexes[3:].tolist()
        (('kind=top', 'tag=y'), [[1, 2], [1, 2]])
    """
    if min_count < 1 or max_attributes < 1:
        raise ValueError(
            f"min_count and max_attributes must be positive, got {min_count} and {max_attributes}."
        )
    types = catalogue.types
    if columns is None:
        columns = [name for name, kind in types.items() if kind in ("categorical", "multi")]
    check_columns(list(types), columns, type(catalogue).__name__)
    wrong = {name: types[name] for name in columns if types[name] not in _KINDS}
    if wrong:
        raise DataError(f"Attributes are made of {', '.join(_KINDS)} features, not of {wrong}.")
    known = catalogue.lookup(vocabulary.ids)
    owners, labels = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for name in columns:
        rows, values = _values(known[name], types[name])
        owners.append(rows)
        labels.append(pc.binary_join_element_wise(pa.scalar(name), values, "="))
    codes, names = dictionary_encode(pa.concat_arrays(labels))
    # An attribute that an item names twice counts once.
    owner, code = np.divmod(
        np.unique(np.concatenate(owners) * len(names) + codes), max(1, len(names))
    )
    seen = np.bincount(code, minlength=len(names))
    kept = np.argsort(-seen, kind="stable")[: np.count_nonzero(seen >= min_count)]
    if not len(kept):
        raise DataError(
            f"No attribute of {list(columns)} is that of {min_count} of the vocabulary's "
            f"{len(vocabulary):,} items. Name other columns, or lower min_count."
        )
    number = np.zeros(len(names), np.int64)
    number[kept] = np.arange(1, len(kept) + 1)
    code = number[code]
    order = np.lexsort((code, owner))
    owner, code = owner[order][code[order] > 0], code[order][code[order] > 0]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    read = place < max_attributes
    indexes = np.zeros((vocabulary.size, int(place[read].max()) + 1), np.int32)
    indexes[NUM_RESERVED + owner[read], place[read]] = code[read]
    return ItemAttributes(indexes, tuple(names.take(pa.array(kept)).to_pylist()))


def _values(column: pa.ChunkedArray, kind: str) -> tuple[np.ndarray, pa.Array]:
    """Returns the row of every value, rising, and the values as one array."""
    if kind == "categorical":
        rows, values = np.flatnonzero(column.is_valid().to_numpy()), column.drop_null()
    else:
        lists = words(column) if kind == "text" else column
        parents, values = pc.list_parent_indices(lists), pc.list_flatten(lists)
        rows = parents.filter(values.is_valid()).to_numpy().astype(np.int64)
        values = values.drop_null()
    return rows, values.combine_chunks()
