"""By what items and candidates go together: themselves, what they are made of, shared features."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.id_index import IdIndex, dictionary_encode
from tfrec_llm.data.packing import ranges

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import FeatureTable

# Values, after the place of the thing that each belongs to.
Values = tuple[np.ndarray, pa.Array | pa.ChunkedArray]


class Tags:
    """Numbers that things have, several a thing or none.

    Args:
        things: int64 `[n]`, the thing of every tag.
        tags: int64 `[n]`, below `size`; a negative one is no tag.
        count: Number of things.
        size: Number of tags there are.

    Example:
        >>> tags = Tags(np.array([0, 1, 1]), np.array([7, 7, 8]), count=2, size=9)
        >>> tags.of(np.array([1, 0]))
        (array([0, 0, 1]), array([7, 8, 7]))
    """

    def __init__(self, things: np.ndarray, tags: np.ndarray, *, count: int, size: int):
        known = tags >= 0
        pairs = np.unique(things[known] * size + tags[known])
        self._tags = pairs % size
        self._sizes = np.bincount(pairs // size, minlength=count)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def of(self, things: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns every tag of some things, after the place of its thing in `things`."""
        sizes = self._sizes[things]
        tags = self._tags[ranges(self._starts[things], sizes)]
        return np.repeat(np.arange(len(things)), sizes), tags


@dataclass(frozen=True)
class Links:
    """What items of a history and candidates may have in common.

    Attributes:
        items: Tags of the items.
        candidates: Tags of the candidates; items that share one go together with them.
        size: Number of tags there are.
    """

    items: Tags
    candidates: Tags
    size: int

    @classmethod
    def of(cls, items: Values, candidates: Values, *, counts: tuple[int, int]) -> "Links":
        """Numbers the values of items, and those of candidates alike.

        Args:
            items: Values of the items.
            candidates: Values of the candidates.
            counts: How many items and how many candidates there are.

        Raises:
            MixedTypeError: If the one are numbers and the others are text.
        """
        codes, values = dictionary_encode(items[1])
        size = max(1, len(values))
        alike = IdIndex(values, holder="history").positions(candidates[1])
        return cls(
            Tags(items[0], codes, count=counts[0], size=size),
            Tags(candidates[0], alike, count=counts[1], size=size),
            size,
        )


def values_of(table: "FeatureTable", ids: pa.Array, name: str) -> Values:
    """Returns the values of a feature, after the place of their owner in `ids`."""
    column = table.lookup(ids)[name].combine_chunks()
    if not pa.types.is_list(column.type):
        return np.arange(len(ids)), column
    return pc.list_parent_indices(column).to_numpy().astype(np.int64), pc.list_flatten(column)
