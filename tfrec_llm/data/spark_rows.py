"""The rows of a log shared out to shards by Apache Spark, on one machine or many."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_llm import errors
from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.columns import LogColumns, check_columns, id_column, text_column
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.shard_writing import (
    VALIDATION,
    Places,
    check_complete,
    sequences_in,
    shard_name,
    write_shard,
)
from tfrec_llm.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Where a row stood: the path asked for, the file below it, the row in the file.
_ORDER = ("_source", "_file", "_row")
_SHARD = "_shard"
_LAST = re.compile(r"^[A-Z]\w*(?:Error|Exception): .+", re.MULTILINE)
_RAISED = re.compile(r"tfrec_llm\.errors\.(\w+): (.+)")


class SparkRows:
    """What `RowsByShard` does, done by Spark: it counts, shares out, sorts and writes.

    Args:
        spark: The session.
        source: Parquet files or folders, by any address that Spark reads.
        columns: Which column plays which part.
        places: Which shard a user belongs to.

    Raises:
        DataFileError: If Spark cannot read the files.
        MissingColumnError: If they lack a column.
    """

    def __init__(self, spark: "SparkSession", source: Any, columns: LogColumns, places: Places):
        from pyspark.sql.types import IntegerType, StructField, StructType

        self.spark = spark
        self.columns = columns
        self.places = places
        with _own_errors():
            self._rows = _read(spark, source, columns)
            self._empty = self._rows.limit(0).toArrow()
        fields = StructType([*self._rows.schema.fields, StructField(_SHARD, IntegerType())])
        self._placed = self._rows.mapInArrow(
            partial(_placed, columns=columns, places=places), fields
        )

    def vocabulary(self, min_count: int) -> Vocabulary:
        counted = self._counts(self.columns.item)
        if not len(counted):
            raise errors.EmptyLogError("The log has no rows.")
        ids = id_column(counted["value"], self.columns.item, self.columns.ids).combine_chunks()
        return Vocabulary.of_counts(ids, counted["count"].to_numpy(), min_count=min_count)

    def kinds(self) -> list[str]:
        assert self.columns.behavior is not None
        counted = self._counts(self.columns.behavior)
        names = text_column(counted["value"], self.columns.behavior).combine_chunks()
        return Vocabulary.of_counts(names, counted["count"].to_numpy()).ids.to_pylist()

    def write(
        self, folder: Path, vocabulary: Vocabulary, kinds: list[str]
    ) -> Iterator[UserSequences]:
        """Writes every shard, and what is kept apart; yields each shard's sequences."""
        vocabulary.save(folder / "vocabulary.parquet")
        write_rows = partial(
            _write_rows, columns=self.columns, places=self.places, folder=str(folder), kinds=kinds
        )

        def write(key, rows):
            number = key[0].as_py()
            write_rows(rows.sort_by([(name, "ascending") for name in _ORDER]), number)
            return pa.table({_SHARD: pa.array([number], pa.int32())})

        with _own_errors():
            self._placed.groupBy(_SHARD).applyInArrow(write, f"{_SHARD} int").collect()
        for number in range(self.places.num_shards + bool(self.places.validation)):
            path = _path(folder, number, self.places)
            if not path.exists():
                write_rows(self._empty, number)
            if number < self.places.num_shards:
                yield sequences_in(pq.read_table(path), tuple(kinds))

    def each(self, function: Callable[[Path], np.ndarray], paths: list[Path]) -> Iterable[Any]:
        """Gives what a function makes of each path, made by Spark's workers."""
        return self.spark.sparkContext.parallelize(paths, len(paths)).map(function).collect()

    def _counts(self, name: str) -> pa.Table:
        """Returns how often each value occurs outside of validation, by first appearance."""
        from pyspark.sql import functions as F

        value = F.col(_quoted(name))
        counted = (
            self._placed.where((F.col(_SHARD) < self.places.num_shards) & value.isNotNull())
            .groupBy(value.alias("value"))
            .agg(F.count("*").alias("count"), F.min(F.struct(*_ORDER)).alias("first"))
            .orderBy("first")
            .select("value", "count")
        )
        with _own_errors():
            return counted.toArrow()


def _read(spark: "SparkSession", source: Any, columns: LogColumns) -> "DataFrame":
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not paths or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise TypeError("Spark reads Parquet files: pass their paths or addresses as source.")
    frames = []
    for number, path in enumerate(paths):
        frame = spark.read.parquet(os.fspath(path))
        check_columns(frame.columns, columns.names, f"file {path}")
        place = F.lit(number), F.col("_metadata.file_path"), F.col("_metadata.row_index")
        named = [column.alias(name) for column, name in zip(place, _ORDER, strict=True)]
        frames.append(frame.select(*map(_quoted, columns.names), *named))
    return reduce(DataFrame.unionByName, frames)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _placed(
    batches: Iterable[pa.RecordBatch], columns: LogColumns, places: Places
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        log = columns.canonical(pa.Table.from_batches([batch]))
        check_complete(log)
        place = places.of(log["user"]).astype(np.int32)
        yield batch.append_column(_SHARD, pa.array(place))


def _write_rows(
    rows: pa.Table, number: int, columns: LogColumns, places: Places, folder: str, kinds: list[str]
) -> None:
    """Writes a shard, or what is kept apart, of rows in their order."""
    log = columns.canonical(rows)
    # Spark may run a task twice at once; the file is whole at any time.
    with replace_file(_path(Path(folder), number, places)) as temporary:
        if number == places.num_shards:
            pq.write_table(log, temporary, compression="zstd")
        else:
            vocabulary = Vocabulary.load(Path(folder) / "vocabulary.parquet")
            write_shard(log, temporary, vocabulary, kinds)


def _path(folder: Path, number: int, places: Places) -> Path:
    return folder / (VALIDATION if number == places.num_shards else shard_name(number))


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises what this library raised in a worker as itself, other failures as DataFileError."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        found = _RAISED.search(str(error))
        if found:
            raise getattr(errors, found[1])(found[2]) from error
        first = str(error).partition("\n")[0]
        last = _LAST.findall(str(error))
        cause = f" {last[-1]}" if last else ""
        raise errors.DataFileError(f"Spark cannot write the shards: {first}{cause}") from error
