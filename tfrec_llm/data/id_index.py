"""Raw ids of users and items, and where each of them stands in a list."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.errors import MixedTypeError

# Arrow hashes the whole list at every look-up. A few ids in a long list, as a
# server asks for them, are found sooner in a dictionary that is built once.
_LONG_LIST, _FEW_IDS = 50_000, 1_000


def as_ids(values: Any) -> pa.Array | pa.ChunkedArray:
    """Returns raw ids as an Arrow array of one type.

    Integers of any width become int64, strings of any layout become strings, whole-numbered
    floats (what pandas makes of integers beside a missing value) become int64 with nulls.

    Args:
        values: A list, NumPy array, pandas Series or Arrow array of ids.

    Raises:
        MixedTypeError: If the values are of several types, such as `7` and `"7"`.
        TypeError: If `values` is a single string and no list of ids.

    Example:
        >>> as_ids([7, 9]).type
        DataType(int64)
    """
    if isinstance(values, str | bytes):
        raise TypeError(f"Expected a list of ids, got the single id {values!r}.")
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        try:
            values = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise MixedTypeError(
                f"The ids are of several types ({error}). Convert them to one, such as strings."
            ) from error
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if pa.types.is_integer(kind):
        return values if kind == pa.int64() else values.cast(pa.int64())
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return values.cast(pa.string())
    if pa.types.is_floating(kind):
        whole = pc.all(pc.equal(pc.floor(values), values)).as_py()
        return values.cast(pa.int64()) if whole is not False else values
    return values


def dictionary_encode(values: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Returns (int64 code of every value, the unique values by first appearance).

    A null has the code -1.
    """
    if not isinstance(values, pa.ChunkedArray):
        values = pa.chunked_array([values])
    if not len(values):
        return np.zeros(0, np.int64), pa.array([], values.type)
    encoded = pc.dictionary_encode(values).unify_dictionaries()
    codes = [
        pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks
    ]
    return np.concatenate(codes).astype(np.int64, copy=False), encoded.chunk(0).dictionary


class IdIndex:
    """A list of unique raw ids that tells where an id stands.

    Args:
        ids: The ids, unique and without nulls.
        holder: Who holds them, for messages: `"vocabulary"`.

    Raises:
        MixedTypeError: If an id is missing, or the ids are of several types.

    Example:
        >>> IdIndex(["A13", "B4"], holder="vocabulary").positions(["B4", "Z9"])
        array([ 1, -1])
    """

    def __init__(self, ids: Any, *, holder: str):
        ids = as_ids(ids)
        self.ids: pa.Array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        self.holder = holder
        if self.ids.null_count:
            raise MixedTypeError(f"{self.ids.null_count} of the {holder}'s ids are missing.")
        self._places: dict[Any, int] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def as_own_type(self, values: Any) -> pa.Array | pa.ChunkedArray:
        """Returns `values` as ids of this list's type.

        Raises:
            MixedTypeError: If they are of another type, such as `7` where this list has `"7"`.
        """
        values = as_ids(values)
        own = self.ids.type
        if values.type == own:
            return values
        if pa.types.is_null(values.type) or not len(values):
            return pa.nulls(len(values), own)
        if not len(self.ids):
            return values
        raise MixedTypeError(
            f"The {self.holder} holds ids of type {own} (first {self.ids[0].as_py()!r}), but was "
            f"asked for ids of type {values.type} (first {values[0].as_py()!r}). "
            "Convert one of the two."
        )

    def positions(self, values: Any) -> np.ndarray:
        """Returns int64 positions in the list, -1 for what is not in it."""
        values = self.as_own_type(values)
        if not len(self.ids):
            return np.full(len(values), -1, np.int64)
        if len(values) <= _FEW_IDS and len(self.ids) > _LONG_LIST:
            if self._places is None:
                self._places = {raw: place for place, raw in enumerate(self.ids.to_pylist())}
            places = self._places
            return np.array([places.get(raw, -1) for raw in values.to_pylist()], np.int64)
        found = pc.fill_null(pc.index_in(values, value_set=self.ids), -1)
        return found.to_numpy().astype(np.int64)
