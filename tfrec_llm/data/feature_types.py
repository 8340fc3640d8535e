"""The five types of a feature: how they are told from the data and how they are kept."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.columns import is_text, number_column, plain, text_column, time_column
from tfrec_llm.errors import DataError

FeatureType = Literal["categorical", "multi", "numeric", "text", "date"]
FEATURE_TYPES = ("categorical", "multi", "numeric", "text", "date")


def infer_type(column: pa.ChunkedArray) -> FeatureType:
    """Tells a feature's type from its values.

    Lists are `"multi"`, numbers `"numeric"`, times `"date"`, booleans `"categorical"`. Text is
    `"text"` if most values are different and have several words, such as titles, and
    `"categorical"` otherwise.

    Example:
        >>> infer_type(pa.chunked_array([["blouse", "skirt", "blouse"]]))
        'categorical'
    """
    kind = column.type
    if _is_list(kind):
        return "multi"
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
    for `"numeric"`, timestamps in microseconds for `"date"`.

    Raises:
        DataError: If the values are not of the type.
    """
    column = plain(column)
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
        raise DataError(f"Column {name!r} holds lists; its type is 'multi', not {feature_type!r}.")
    return text_column(column, name)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
