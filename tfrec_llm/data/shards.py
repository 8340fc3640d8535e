"""Logs larger than memory: whole users' sequences in many files, written and read by streaming."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.cleaning_steps import KCore
from tfrec_llm.data.columns import LogColumns
from tfrec_llm.data.reading import Paths, parquet_batches
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.shard_writing import (
    VALIDATION,
    CoreOfShards,
    Places,
    RowsByShard,
    sequences_in,
    shard_name,
)
from tfrec_llm.data.splits import leave_last_out
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import DataFileError, EmptyLogError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FORMAT = "tfrec_llm.shards.1"
_NOTES = "shards.json"


class Shards:
    """A log in files of whole users, of which a few are in memory at a time.

    `write` makes the folder, `open` reads it. Each shard holds about as many
    users as any other, chosen by a hash of their ids, so that the same log
    gives the same shards however its rows are split into files.

    Attributes:
        folder: Where the files are.
        vocabulary: The items and how often each occurs.
        behavior_vocabulary: Names of the kinds of behaviour, the most frequent first.
        lengths: Of each shard the number of behaviours of each user, int32.

    Raises:
        DataFileError: If the folder holds no shards, or a file is missing or damaged.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(100, 30).simulate()
        >>> shards = Shards.write([log.table], tempfile.mkdtemp() + "/shards", num_shards=4)
        >>> len(shards), shards.num_users, shards.num_behaviors == len(log)
        (4, 100, True)
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        try:
            notes = json.loads((self.folder / _NOTES).read_text(encoding="utf-8"))
            if notes["format"] != _FORMAT:
                raise ValueError(f"its format is {notes['format']!r}, not {_FORMAT!r}")
            self.behavior_vocabulary: tuple[str, ...] = tuple(notes["behavior_vocabulary"])
            self._num_shards: int = notes["num_shards"]
            self.vocabulary = Vocabulary.load(self.folder / "vocabulary.parquet")
            flat = np.load(self.folder / "lengths.npy", mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise DataFileError(f"{folder} does not hold whole shards: {error}") from error
        self.lengths: list[np.ndarray] = np.split(flat, np.cumsum(notes["users"])[:-1])

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Shards":
        """Reads what `write` wrote; only lengths and vocabulary come into memory."""
        return cls(folder)

    @staticmethod
    def are_in(folder: str | os.PathLike[str]) -> bool:
        """Returns whether a folder is one that `write` made."""
        return (Path(folder) / _NOTES).exists()

    @classmethod
    def write(
        cls,
        source: Paths | Iterable[pa.Table],
        folder: str | os.PathLike[str],
        *,
        user: str = "user",
        item: str = "item",
        time: str = "time",
        behavior: str | None = None,
        ids: Literal["string"] | None = None,
        num_shards: int = 64,
        min_count: int = 1,
        core: KCore | None = None,
        validation: float = 0.0,
        spark: "SparkSession | None" = None,
    ) -> "Shards":
        """Writes a log to shards without ever holding it whole.

        Rows are read once, shared out to the shards on disk, then each shard is
        sorted by itself: memory is needed for the vocabulary, a shard, and a
        million rows. The folder is replaced whole or not at all; beside it is
        needed about as much disk again while it is written.

        Args:
            source: Parquet file, several, or a folder of them; or Arrow tables
                one after another, such as from a database.
            folder: Where to write; shards that are there are replaced.
            user: Column of the user ids.
            item: Column of the item ids.
            time: Column of the times.
            behavior: Column of the behaviour types, or None.
            ids: `"string"` turns ids into strings.
            num_shards: Number of files; more need less memory.
            min_count: Items that occur less often become unknown.
            core: `KCore(user, item)`: users and items with fewer behaviours
                are left out again and again, until each has so many.
            validation: Share of users that are kept apart, see `validation`.
            spark: A session of Apache Spark that does the work, on one machine
                or many, with the same result (`pip install
                'tfrec-llm[spark]'`). `source` is then what Spark reads as
                Parquet; `folder` lies where all machines see it, and they have
                this library. Rows of equal time stand in the order of the
                files' full names.

        Raises:
            NullValueError: If a row lacks its user, item or time.
            MixedTypeError: If ids are of different types in different parts.
            EmptyLogError: If no row is left.
            DataFileError: If a file is truncated or damaged.
        """
        if num_shards < 1 or not 0.0 <= validation < 1.0:
            raise ValueError(
                f"num_shards must be 1 or more and validation lie in 0..1, below 1; got "
                f"{num_shards} and {validation}."
            )
        columns = LogColumns(user, item, time, behavior, ids=ids)
        places = Places(num_shards, validation)
        with replace_folder(folder) as target, tempfile.TemporaryDirectory(dir=target) as apart:
            rows: Any
            if spark is None:
                rows = RowsByShard(Path(apart), places)
                for table in _tables(source, columns):
                    rows.add(table)
                rows.close()
            else:
                from tfrec_llm.data.spark_rows import SparkRows

                rows = SparkRows(spark, source, columns, places)
            vocabulary = rows.vocabulary(min_count)
            names = [] if behavior is None else rows.kinds()
            kept = CoreOfShards(core, vocabulary)
            for sequences in rows.write(target, vocabulary, names):
                kept.count(sequences)
            if core is not None:
                paths = [target / shard_name(number) for number in range(num_shards)]
                vocabulary = kept.reduce(paths, rows.each)
            lengths = np.concatenate(kept.lengths)
            if not len(lengths):
                raise EmptyLogError(f"No behaviour is left to write to {folder}.")
            vocabulary.save(target / "vocabulary.parquet")
            np.save(target / "lengths.npy", lengths.astype(np.int32))
            notes = {
                "format": _FORMAT,
                "num_shards": num_shards,
                "users": [len(each) for each in kept.lengths],
                "behavior_vocabulary": names,
            }
            (target / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
        return cls(folder)

    def __len__(self) -> int:
        return self._num_shards

    @property
    def num_users(self) -> int:
        """Users in all shards."""
        return sum(len(each) for each in self.lengths)

    @property
    def num_behaviors(self) -> int:
        """Behaviours in all shards."""
        return sum(int(each.sum()) for each in self.lengths)

    @property
    def keep_users_apart(self) -> bool:
        """Whether there are users for `validation`."""
        return (self.folder / VALIDATION).exists()

    @property
    def validation(self) -> BehaviorLog:
        """The last behaviours of the users kept apart, with those before as history.

        Raises:
            EmptyLogError: If `write` kept no users apart.
        """
        if not self.keep_users_apart:
            raise EmptyLogError("No users were kept apart: write the shards with validation=0.01.")
        log = BehaviorLog(pq.read_table(self.folder / VALIDATION))
        return leave_last_out(log, min_length=2).test

    def read(self, numbers: Iterable[int]) -> UserSequences:
        """Reads shards into memory.

        Args:
            numbers: Which, from 0.

        Raises:
            DataFileError: If a file is missing or damaged.
        """
        tables = []
        for number in numbers:
            path = self.folder / shard_name(number)
            try:
                tables.append(pq.read_table(path))
            except (OSError, pa.ArrowException) as error:
                raise DataFileError(
                    f"{path} cannot be read; write the shards again: {error}"
                ) from error
        return sequences_in(pa.concat_tables(tables), self.behavior_vocabulary)

    def __repr__(self) -> str:
        return (
            f"<Shards: {len(self)} files of {self.num_users:,} users, "
            f"{self.num_behaviors:,} behaviours, {len(self.vocabulary):,} items>"
        )


def _tables(source: Paths | Iterable[pa.Table], columns: LogColumns) -> Iterator[pa.Table]:
    """Gives the log's columns under their roles' names, a part at a time."""
    if isinstance(source, str | os.PathLike):
        parts: Iterable[pa.Table] = parquet_batches(source, columns=columns.names)
    else:
        source = list(source) if not isinstance(source, Iterator) else source
        named = isinstance(source, list) and any(isinstance(p, str | os.PathLike) for p in source)
        parts = parquet_batches(source, columns=columns.names) if named else source  # type: ignore
    for part in parts:
        yield columns.canonical(part if isinstance(part, pa.Table) else pa.table(part))
