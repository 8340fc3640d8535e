"""How often each value of a stream occurred."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfrec_llm.data.id_index import as_ids
from tfrec_llm.data.vocabulary import Vocabulary

# Parts are merged when they hold as many values as what was merged before, so that the work is
# that of sorting them once or twice.
_FIRST_MERGE = 1_000_000


class RunningCounts:
    """Counts values that come in parts; memory grows with the different values only.

    Example:
        >>> counts = RunningCounts()
        >>> counts.add(["B4", "A13"])
        >>> counts.add(["A13"])
        >>> counts.vocabulary(1).ids.to_pylist()
        ['A13', 'B4']
    """

    def __init__(self) -> None:
        self._merged: pa.Table | None = None
        self._parts: list[pa.Table] = []
        self._waiting = 0

    def add(self, values: Any) -> None:
        """Counts further values; nulls are left out.

        Args:
            values: Ids of one type.
        """
        counted = pc.value_counts(pc.drop_null(as_ids(values)))
        if not len(counted):
            return
        self._parts.append(
            pa.table({"id": counted.field("values"), "count": counted.field("counts")})
        )
        self._waiting += len(counted)
        held = 0 if self._merged is None else len(self._merged)
        if self._waiting > max(_FIRST_MERGE, held):
            self._merge()

    def vocabulary(self, min_count: int) -> Vocabulary:
        """Returns the `Vocabulary` that `Vocabulary.fit` makes of all values at once.

        Args:
            min_count: Values seen less often are left out.
        """
        self._merge()
        if self._merged is None:
            return Vocabulary(pa.array([], pa.string()))
        seen = self._merged["count"].to_numpy()
        return Vocabulary.of_counts(self._merged["id"], seen, min_count=min_count)

    def _merge(self) -> None:
        parts = ([] if self._merged is None else [self._merged]) + self._parts
        if not self._parts:
            return
        # One thread: groups then stand by first appearance.
        grouped = pa.concat_tables(parts).group_by("id", use_threads=False)
        counted = grouped.aggregate([("count", "sum")])
        self._merged = pa.table({"id": counted["id"], "count": counted["count_sum"]})
        self._parts, self._waiting = [], 0
