"""Rows of a table: numbered, sorted and taken in linear time."""

import numpy as np
import pyarrow as pa

from tfrec_llm.data.id_index import dictionary_encode

_PIECE = 4 << 20


def renumber(codes: np.ndarray, values: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Numbers again, by first appearance, what is left of numbered values.

    Args:
        codes: int64 numbers of some rows' values, -1 for missing ones.
        values: The values that they number, of which rows may use only some.

    Returns:
        The new numbers, and the values that they number: those in use.

    Example:
        >>> codes, values = renumber(np.array([2, 0, 2]), pa.array(["A", "B", "C"]))
        >>> codes, values.to_pylist()
        (array([0, 1, 0]), ['C', 'A'])
    """
    if not len(values):
        return codes, values
    first = np.full(len(values), codes.size, np.int64)
    backwards = codes[::-1]
    known = backwards >= 0
    # Of several assignments to one place the last stays: the first appearance.
    first[backwards[known]] = np.arange(codes.size - 1, -1, -1)[known]
    kept = np.argsort(first, kind="stable")[: np.count_nonzero(first < codes.size)]
    numbers = np.full(len(values) + 1, -1, np.int64)  # the last place serves the code -1
    numbers[kept] = np.arange(kept.size)
    return numbers[codes], values.take(pa.array(kept))


def stable_order(codes: np.ndarray, count: int) -> np.ndarray:
    """Returns the stable argsort of codes below `count`, by radix sort of 16 bits at a time.

    Example:
        >>> stable_order(np.array([1, 0, 1, 0]), 2)
        array([1, 3, 0, 2])
    """
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    if count > 1 << 16:
        high = (codes >> 16).astype(np.uint16 if count <= 1 << 32 else np.int64)
        order = order[np.argsort(high[order], kind="stable")]
    return order


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Returns rows of a table by their numbers, also where a column has over 2 GB of text.

    Raises:
        IndexError: If a row is not there.
    """
    try:
        return table.take(pa.array(rows))
    except pa.ArrowInvalid:  # Arrow joins a column's chunks, and a string's offsets end at 2 GB.
        columns = {name: _take_pieces(table[name], rows) for name in table.column_names}
        return pa.table(columns)


def _take_pieces(column: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column.take(pa.array(rows))
    codes, values = dictionary_encode(column)
    codes = codes[rows]
    pieces = [codes[start : start + _PIECE] for start in range(0, len(codes), _PIECE)]
    return pa.chunked_array([values.take(pa.array(p, mask=p < 0)) for p in pieces], column.type)
