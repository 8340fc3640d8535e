"""What a server recommended and what users did, as it was recorded."""

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import DataFileError, EmptyLogError
from tfrec_llm.serving.recording import EVENTS, FILE_NAME, LISTS, SCHEMAS


@dataclass(frozen=True, eq=False)
class ServedLog:
    """Lists that were recommended and events that were posted, both in order of time.

    Args:
        lists: Columns as in `Recorder`'s files: time, user (a hash or null), version, source,
            milliseconds, history_length, history, behaviors, items, scores. Item ids are text.
        events: Columns time, user, item, behavior.

    Example:
        >>> import tempfile
        >>> from tfrec_llm.serving import Event, Recorder
        >>> folder = tempfile.mkdtemp()
        >>> recorder = Recorder(folder)
        >>> recorder.add_events([Event("e1", "anna", "A13", 5.0)])
        >>> recorder.close()
        >>> ServedLog.read(folder)
        ServedLog(0 lists, 1 events, 1970-01-01 00:00:05 to 1970-01-01 00:00:05)
    """

    lists: pa.Table
    events: pa.Table

    @classmethod
    def read(
        cls, folder: str | os.PathLike[str], *, since: datetime.datetime | None = None
    ) -> "ServedLog":
        """Reads what a `Recorder` wrote.

        Args:
            folder: Of the record.
            since: What is older is left out; None reads all.

        Raises:
            DataFileError: If there is no record, or a file of it is damaged.
            EmptyLogError: If it holds nothing of that time.
        """
        folder = Path(folder)
        tables = {}
        for kind, schema in SCHEMAS.items():
            if not (folder / kind).is_dir():
                raise DataFileError(
                    f"{folder} is no record of a server: it has no folder {kind}. Write one with "
                    "tfrec-llm serve --record."
                )
            found = [schema.empty_table()]
            for path in sorted((folder / kind).glob("2*.parquet")):
                # A file is named by the moment it was written. Events may come from fast clocks.
                if since is not None and path.name < (since - datetime.timedelta(1)).strftime(
                    FILE_NAME
                ):
                    continue
                try:
                    found.append(pq.read_table(path, schema=schema))
                except FileNotFoundError:  # it has grown too old meanwhile
                    continue
                except (OSError, ValueError, pa.ArrowException) as error:
                    raise DataFileError(f"{path} cannot be read: {error}") from error
            table = pa.concat_tables(found)
            if since is not None:
                table = table.filter(pc.greater_equal(table["time"], pa.scalar(since)))
            tables[kind] = table.sort_by("time")
        if not any(map(len, tables.values())):
            raise EmptyLogError(f"The record {folder} holds nothing of that time.")
        return cls(tables[LISTS], tables[EVENTS])

    def __repr__(self) -> str:
        times = [_as_datetime(moment) for moment in self.span]
        return (
            f"ServedLog({len(self.lists):,} lists, {len(self.events):,} events, "
            f"{times[0]} to {times[1]})"
        )

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last moment, microseconds since 1970."""
        ends = [
            int(moments[place])
            for moments in (times_of(self.lists), times_of(self.events))
            if len(moments)
            for place in (0, -1)
        ]
        return min(ends), max(ends)

    def between(self, first: int, last: int) -> "ServedLog":
        """Returns what happened from one moment to before another, microseconds since 1970."""
        parts = []
        for table in (self.lists, self.events):
            start, stop = np.searchsorted(times_of(table), [first, last])
            parts.append(table.slice(start, stop - start))
        return ServedLog(*parts)


def times_of(table: pa.Table) -> np.ndarray:
    """Returns the times of a table, int64 microseconds since 1970."""
    return table["time"].cast(pa.int64()).to_numpy()


def indexes_of(texts: pa.ChunkedArray | pa.Array, vocabulary: Vocabulary) -> np.ndarray:
    """Returns int32 indexes of item ids that were recorded as text."""
    if not pa.types.is_string(vocabulary.ids.type):
        whole = pc.match_substring_regex(texts, r"^-?[0-9]{1,18}$")
        texts = pc.if_else(whole, texts, pa.scalar(None, pa.string())).cast(pa.int64())
    return vocabulary.encode(texts, on_unknown="unknown")


def flat(column: pa.ChunkedArray) -> tuple[Any, np.ndarray]:
    """Returns a list column's values one after the other, and how many each row has."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    return pc.list_flatten(column), lengths


def _as_datetime(moment: int) -> Any:
    return datetime.datetime.fromtimestamp(moment / 1e6, datetime.UTC).replace(tzinfo=None)
