"""The six types of a feature: how they are told from the data and how they are kept."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.columns import is_text, number_column, plain, text_column, time_column
from tfrec_llm.errors import DataError

FeatureType = Literal["categorical", "multi", "numeric", "text", "date", "vector"]
FEATURE_TYPES = ("categorical", "multi", "numeric", "text", "date", "vector")


def infer_type(column: pa.ChunkedArray) -> FeatureType:
    """Tells a feature's type from its values.

    Lists of two or more floats that are all of one length are `"vector"`, other lists `"multi"`,
    numbers `"numeric"`, times `"date"`, booleans `"categorical"`. Text is `"text"` if most values
    are different and have several words, such as titles, and `"categorical"` otherwise.

    Example:
        >>> infer_type(pa.chunked_array([["blouse", "skirt", "blouse"]]))
        'categorical'
    """
    column = _storage(column)
    kind = column.type
    if _is_list(kind):
        return "vector" if _is_vector(column) else "multi"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numeric"
    if pa.types.is_temporal(kind):
        return "date"
    if is_text(kind) and len(column) > column.null_count:
        values = column.drop_null()
        words = pc.mean(pc.add(pc.count_substring(values, " "), 1)).as_py()
        if words >= 2 and pc.count_distinct(values).as_py() > len(values) / 2:
            return "text"
    return "categorical"


def feature_column(
    column: pa.ChunkedArray, name: str, feature_type: FeatureType, *, separator: str
) -> pa.ChunkedArray:
    """Returns a feature in the form in which its type is kept.

    Strings for `"categorical"` and `"text"`, lists of strings for `"multi"`, int64 or float64
    for `"numeric"`, timestamps in microseconds for `"date"`, lists of float32 of a fixed size for
    `"vector"`.

    Raises:
        DataError: If the values are not of the type.
    """
    column = _storage(plain(column))
    if feature_type == "vector":
        return _vectors(column, name)
    if feature_type == "numeric":
        whole = pa.types.is_integer(column.type) and column.type != pa.uint64()
        return number_column(column, name, pa.int64() if whole else pa.float64())
    if feature_type == "date":
        times = time_column(column, name)
        if not pa.types.is_timestamp(times.type) and times.null_count < len(times):
            raise DataError(
                f"Column {name!r} holds numbers, which may count days or seconds. Convert it to "
                "timestamps, or give it the type 'numeric'."
            )
        return times if pa.types.is_timestamp(times.type) else times.cast(pa.timestamp("us"))
    if feature_type == "multi":
        if _is_list(column.type):
            return column.cast(pa.list_(pa.string()))
        text = text_column(column, name)
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        return pc.split_pattern(text, separator)
    if _is_list(column.type):
        raise DataError(
            f"Column {name!r} holds lists; its type is 'multi' or 'vector', not {feature_type!r}."
        )
    return text_column(column, name)


def vector_array(vectors: np.ndarray, name: str) -> pa.FixedSizeListArray:
    """Returns a NumPy array `[rows, width]` as an Arrow array of a vector a row.

    Raises:
        DataError: If it has another number of axes.
    """
    if vectors.ndim != 2:
        raise DataError(f"{name!r} has the shape {vectors.shape}; vectors have [rows, width].")
    flat = np.ascontiguousarray(vectors, np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1])


def vector_matrix(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a column of the type `"vector"` as float32 `[rows, width]` and who has one, `[rows]`.

    A row without a vector holds zeros.
    """
    width = column.type.list_size
    present = column.is_valid().to_numpy()
    matrix = np.zeros((len(column), width), np.float32)
    values = [chunk.drop_null().flatten().to_numpy() for chunk in column.chunks]
    if present.any():
        matrix[present] = np.concatenate(values).reshape(-1, width)
    return matrix, present


def _vectors(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_null(column.type):
        raise DataError(f"Column {name!r} is empty, so the size of its vectors is not known.")
    if not _is_list(column.type) or not _is_number(column.type.value_type):
        raise DataError(f"Column {name!r} holds {column.type}; vectors are lists of numbers.")
    sizes = pc.list_value_length(column)
    given = column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
    width = given or next(iter(sizes.drop_null().slice(0, 1).to_pylist()), None)
    if not width:
        raise DataError(f"Column {name!r} is empty, so the size of its vectors is not known.")
    others = pc.fill_null(pc.not_equal(sizes, width), False).to_numpy()
    if others.any():
        row = int(np.argmax(others))
        raise DataError(
            f"Column {name!r}: {others.sum():,} of {len(column):,} vectors have another size than "
            f"the first, {width}, such as {sizes[row].as_py()} in row {row:,}. Give all one size, "
            "or take the type 'multi'."
        )
    column = column.cast(pa.list_(pa.float32(), width), safe=False)
    numbers = pc.list_flatten(column.drop_null())
    wrong = len(numbers) - (pc.sum(pc.is_finite(numbers)).as_py() or 0)
    if wrong:
        raise DataError(
            f"Column {name!r} holds {wrong:,} numbers that are missing, NaN or infinite inside of "
            "its vectors. Replace them, or leave the whole vector out (None)."
        )
    return column


def _is_vector(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        return _is_number(kind.value_type)
    if not pa.types.is_floating(kind.value_type):
        return False
    sizes = pc.min_max(pc.list_value_length(column)).as_py()
    return sizes["min"] == sizes["max"] and (sizes["min"] or 0) >= 2


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column of Arrow's tensors as the lists that hold them, another as it is."""
    if not isinstance(column.type, pa.FixedShapeTensorType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
