"""Columns of a catalogue, read for the items of a vocabulary."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.columns import check_columns
from tfrec_llm.data.feature_types import vector_matrix
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.data.words import words
from tfrec_llm.errors import DataError
from tfrec_llm.reranking.likeness import Cosine, Likeness, SameValue, SharedWords

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import Catalogue


class ItemColumns:
    """What a catalogue says of the items of a vocabulary.

    Args:
        catalogue: The catalogue; None where there is none.
        vocabulary: The items.
    """

    def __init__(self, catalogue: "Catalogue | None", vocabulary: Vocabulary):
        self._catalogue = catalogue
        self._vocabulary = vocabulary

    def values(self, name: str, *, default: float | None, items: np.ndarray) -> np.ndarray:
        """Returns a numeric column, float32 `[vocabulary]`.

        Args:
            name: The column.
            default: For items without a value.
            items: int `[m]`, those whose values are needed and therefore checked.

        Raises:
            DataError: If a value that is needed is negative, or is missing and has no default.
        """
        column, kind = self._column(name, f"value={name!r}")
        if kind != "numeric":
            raise DataError(f"value={name!r} is a {kind} column; a value is a number.")
        values = column.cast(pa.float64()).to_numpy()
        missing = np.isnan(values)
        negative = values < 0.0
        for wrong, what, cure in (
            (
                missing & (default is None),
                "no value",
                "Give default_value=, or leave such items out with where=.",
            ),
            (negative, "a negative value", "Correct them, or leave them out with where=."),
        ):
            found = items[wrong[items]]
            if len(found):
                first = self._vocabulary.ids[int(found[0])].as_py()
                raise DataError(
                    f"{len(found):,} of {len(items):,} items have {what} in {name!r}, first "
                    f"{first!r}. {cure}"
                )
        if default is not None:
            values = np.where(missing, default, values)
        return values.astype(np.float32)

    def same(self, name: str) -> SameValue:
        """Returns which items have the same value in a column of single values.

        Raises:
            DataError: If the column holds lists.
        """
        column, kind = self._column(name, f"the quota of {name!r}")
        if kind in ("multi", "vector"):
            raise DataError(
                f"{name!r} holds lists, of which an item has several values; quotas count items by "
                "one value. Add a column that holds one, such as the main category."
            )
        return _same(column)

    def likeness(self, name: str) -> Likeness:
        """Returns how alike items are in a column.

        Words that both have over the words of either (lists of words, texts), the cosine of
        vectors, else whether the values are equal.
        """
        column, kind = self._column(name, f"diversity_by={name!r}")
        if kind == "vector":
            matrix, _ = vector_matrix(column)
            return Cosine(matrix.__getitem__, matrix.shape[1])
        if kind not in ("multi", "text"):
            return _same(column)
        lists: Any = words(column) if kind == "text" else column
        sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
        codes, unique = dictionary_encode(pc.list_flatten(lists))
        owners = np.repeat(np.arange(len(sizes)), sizes)[codes >= 0]
        pairs = np.unique(owners * max(len(unique), 1) + codes[codes >= 0])
        owners, codes = np.divmod(pairs, max(len(unique), 1))
        counts = np.bincount(owners, minlength=len(sizes))
        return SharedWords(codes, np.concatenate([[0], np.cumsum(counts)]))

    def _column(self, name: str, what: str) -> tuple[Any, str]:
        """Returns a column in the order of the vocabulary, and its type."""
        if self._catalogue is None:
            raise DataError(
                f"{what} names a column of the catalogue, but there is no catalogue. Give it to "
                "the log that is fitted."
            )
        check_columns(list(self._catalogue.types), [name], "catalogue")
        column = self._catalogue.lookup(self._vocabulary.ids)[name]
        return column, self._catalogue.types[name]


def _same(column: pa.ChunkedArray) -> SameValue:
    values = column.combine_chunks()
    codes = pc.dictionary_encode(values).indices
    return SameValue(pc.fill_null(codes, -1).to_numpy().astype(np.int64))
