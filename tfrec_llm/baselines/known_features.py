"""What is known of items, users and impressions, as plain columns of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec_llm.data.columns import check_columns
from tfrec_llm.data.feature_encoding import FeatureEncoding
from tfrec_llm.data.feature_table import FeatureTable
from tfrec_llm.data.feature_types import infer_type
from tfrec_llm.data.id_index import dictionary_encode

_TYPES = ("categorical", "multi", "numeric")
_MOST_VALUES = 50  # columns of a category or of tags
_MOST_TAGS = 256  # that are read of one row


class KnownFeatures:
    """Numbers standardised, and a column of 0 and 1 for each frequent value of the others.

    Texts, dates and vectors are left out; a linear model makes little of them.

    Args:
        table: The features, by id; or columns, a row for each impression; None for none.
        ids: The id of every impression in the table; None for columns.
        names: The features to take; None for all.

    Raises:
        MissingColumnError: If a feature of `names` is not there.

    Example:
        >>> items = pa.table({"item": [1, 2], "kind": ["top", "skirt"], "usd": [40, 20]})
        >>> known = KnownFeatures(FeatureTable(items, key="item"), pa.chunked_array([[1, 2, 2]]))
        >>> known.columns(FeatureTable(items, key="item"), pa.chunked_array([[2, 1]]))
        {'kind=skirt': array([1., 0.], dtype=float32),
         'kind=top': array([0., 1.], dtype=float32),
         'usd': array([-1.,  1.], dtype=float32),
         'usd=missing': array([0., 0.], dtype=float32)}
    """

    def __init__(
        self,
        table: FeatureTable | pa.Table | None,
        ids: Any = None,
        *,
        names: Sequence[str] | None = None,
    ):
        self._encoding: FeatureEncoding | None = None
        self._kept: dict[str, dict[str, int]] = {}
        if table is None:
            return
        rows, places = _rows(table, ids)
        if names is not None:
            check_columns(rows.column_names, names)
            rows = rows.select(list(names))
        types = table.types if isinstance(table, FeatureTable) else {}
        types = {name: types.get(name) or infer_type(rows[name]) for name in rows.column_names}
        types = {
            name: kind
            for name, kind in types.items()
            if kind in _TYPES and rows[name].null_count < len(rows)
        }
        if not types:
            return
        self._encoding = FeatureEncoding.fit(
            rows, columns=list(types), types=types, max_values=_MOST_TAGS
        )
        arrays = self._encoding.encode(rows)
        for feature in self._encoding.get_config()["features"]:
            if feature["kind"] == "numeric":
                continue
            name = feature["name"]
            words = ["missing", "unseen", *feature["code"]["values"]]
            counts = np.bincount(arrays[name][places].ravel(), minlength=len(words))
            if feature["kind"] == "multi":
                counts[0] = 0  # what fills up a short list
            order = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
            self._kept[name] = {words[code]: int(code) for code in order if counts[code]}

    def columns(
        self, table: FeatureTable | pa.Table | None, ids: Any = None
    ) -> dict[str, np.ndarray]:
        """Returns float32 `[impressions]` by name, for a table and ids as they were learned of."""
        if self._encoding is None or table is None:
            return {}
        rows, places = _rows(table, ids)
        columns = {}
        for name, values in self._encoding.encode(rows).items():
            if name in self._kept:
                for word, code in self._kept[name].items():
                    has = values == code
                    has = has.any(axis=1) if has.ndim > 1 else has
                    columns[f"{name}={word}"] = has[places].astype(np.float32)
            else:
                columns[name] = values[places, 0]
                columns[f"{name}=missing"] = values[places, 1]
        return columns


def _rows(table: FeatureTable | pa.Table, ids: Any) -> tuple[pa.Table, np.ndarray]:
    """Returns the features of the different ids, and where those of each impression stand."""
    if not isinstance(table, FeatureTable):
        return table, np.arange(len(table))
    places, unique = dictionary_encode(ids)
    return table.lookup(unique).drop_columns([table.key]), places
