"""How shards are written: rows shared out by user, and what has too few behaviours left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.cleaning_steps import KCore
from tfrec_llm.data.id_index import dictionary_encode
from tfrec_llm.data.running_counts import RunningCounts
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED, UNKNOWN, Vocabulary
from tfrec_llm.errors import EmptyLogError, MixedTypeError, NullValueError

# Users are shared out by this many bits of their hash to validation, by others to the shards.
_BITS = 20


class RowsByShard:
    """Rows shared out to files, a part a shard, in the order they came."""

    def __init__(self, folder: Path, num_shards: int, validation: float):
        self.folder = folder
        self.num_shards = num_shards
        self.bound = round(validation * (1 << _BITS))
        self.items, self.kinds = RunningCounts(), RunningCounts()
        self._writers: dict[int, Any] = {}
        self._schema: pa.Schema | None = None

    def add(self, table: pa.Table) -> None:
        if self._schema is None:
            self._schema = table.schema
        for name in ("user", "item"):
            kinds = self._schema.field(name).type, table.schema.field(name).type
            if kinds[0] != kinds[1]:
                raise MixedTypeError(
                    f"The ids in {name!r} are {kinds[0]} first and {kinds[1]} later. "
                    'Pass ids="string".'
                )
            if table[name].null_count:
                raise NullValueError(f"{table[name].null_count} rows lack their {name}.")
        if table["time"].null_count:
            raise NullValueError(f"{table['time'].null_count} rows lack their time.")
        codes, names = dictionary_encode(table["user"])
        hashes = _hashes(names)
        # Validation is told by the low bits, the shard by those above.
        apart = (hashes & ((1 << _BITS) - 1)).astype(np.int64) < self.bound
        place = ((hashes >> np.uint64(_BITS)) % np.uint64(self.num_shards)).astype(np.int64)
        place = np.where(apart, self.num_shards, place)[codes]
        in_shards = pa.array(place < self.num_shards)
        trained = table if not self.bound else table.filter(in_shards)
        self.items.add(trained["item"])
        if "behavior" in table.column_names:
            self.kinds.add(trained["behavior"])
        order = np.argsort(place, kind="stable")
        table = table.cast(self._schema).take(pa.array(order))
        bounds = np.searchsorted(place[order], np.arange(self.num_shards + 2))
        for number in range(self.num_shards + 1):
            first, last = bounds[number], bounds[number + 1]
            if last > first:
                self._writer(number).write_table(table.slice(first, last - first))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        if self._schema is None:
            raise EmptyLogError("The log has no rows.")

    def sequences(self, number: int, vocabulary: Vocabulary, kinds: list[str]) -> UserSequences:
        """Returns a shard's sequences, sorted; its part is removed."""
        log = BehaviorLog(self._part(number))
        self._path(number).unlink(missing_ok=True)
        return UserSequences.from_log(log, vocabulary, behaviors=kinds or None)

    def move_validation(self, path: Path) -> None:
        pq.write_table(self._part(self.num_shards), path, compression="zstd")

    def _part(self, number: int) -> pa.Table:
        assert self._schema is not None
        if not self._path(number).exists():
            return self._schema.empty_table()
        with pa.OSFile(str(self._path(number))) as file:
            return pa.ipc.open_stream(file).read_all()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.arrow"

    def _writer(self, number: int) -> Any:
        if number not in self._writers:
            self._writers[number] = pa.ipc.new_stream(str(self._path(number)), self._schema)
        return self._writers[number]


class CoreOfShards:
    """The users' lengths in all shards and, where wanted, the k-core over them."""

    def __init__(self, core: KCore | None, vocabulary: Vocabulary):
        self.core = core
        self.vocabulary = vocabulary
        self.counts = np.zeros(vocabulary.size, np.int64)
        self.lengths: list[np.ndarray] = []

    def count(self, sequences: UserSequences) -> None:
        self.lengths.append(sequences.lengths)
        self.counts += np.bincount(sequences.items, minlength=self.vocabulary.size)

    def reduce(self, folder: Path, num_shards: int) -> Vocabulary:
        """Rewrites the shards with what is left, and returns the vocabulary of that."""
        assert self.core is not None
        counts = self.counts
        while True:
            alive = counts >= self.core.item
            alive[UNKNOWN] = False
            left = np.zeros_like(counts)
            for number in range(num_shards):
                sequences = sequences_in(pq.read_table(folder / shard_name(number)), ())
                left += np.bincount(
                    sequences.items[_in_core(sequences, alive, self.core.user)],
                    minlength=len(counts),
                )
            if np.array_equal(left, np.where(alive, counts, 0)):
                break
            counts = left
        vocabulary = Vocabulary.of_counts(self.vocabulary.ids, left[NUM_RESERVED:])
        index = np.zeros(len(counts), np.int32)
        index[self.vocabulary.encode(vocabulary.ids)] = np.arange(NUM_RESERVED, vocabulary.size)
        self.lengths = []
        for number in range(num_shards):
            path = folder / shard_name(number)
            sequences = sequences_in(pq.read_table(path), ())
            kept = _in_core(sequences, alive, self.core.user)
            rows = np.repeat(np.arange(len(sequences)), sequences.lengths)[kept]
            sizes = np.bincount(rows, minlength=len(sequences))
            users = np.flatnonzero(sizes)
            self.lengths.append(sizes[users])
            assert sequences.user_ids is not None
            pq.write_table(
                UserSequences(
                    index[sequences.items[kept]],
                    np.append(0, np.cumsum(sizes[users])),
                    user_ids=sequences.user_ids.take(pa.array(users)),
                    behaviors=None if sequences.behaviors is None else sequences.behaviors[kept],
                    times=None if sequences.times is None else sequences.times[kept],
                ).to_arrow(),
                path,
                compression="zstd",
            )
        return vocabulary


def _in_core(sequences: UserSequences, alive: np.ndarray, least: int) -> np.ndarray:
    """Returns which behaviours are of items alive and of users with enough of them."""
    kept = alive[sequences.items]
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
    enough = np.bincount(rows[kept], minlength=len(sequences)) >= least
    return kept & enough[rows]


def sequences_in(table: pa.Table, behavior_vocabulary: tuple[str, ...]) -> UserSequences:
    """Returns what `UserSequences.to_arrow` laid out."""
    values: dict[str, np.ndarray] = {}
    sizes = _list_lengths(table["items"])
    for name in ("items", "behaviors", "times"):
        if name in table.column_names:
            flat = [chunk.flatten() for chunk in table[name].chunks]
            values[name] = (
                np.concatenate([each.to_numpy() for each in flat])
                if flat
                else np.zeros(0, np.int64 if name == "times" else np.int32)
            )
    return UserSequences(
        values.pop("items"),
        np.append(0, np.cumsum(sizes)),
        user_ids=table["user"].combine_chunks(),
        behavior_vocabulary=behavior_vocabulary,
        **values,
    )


def _list_lengths(lists: pa.ChunkedArray) -> np.ndarray:
    return pc.list_value_length(lists).to_numpy().astype(np.int64)


def _hashes(values: pa.Array) -> np.ndarray:
    """Returns uint64 hashes of ids, the same on every machine and in every process."""
    import pandas as pd

    raw = values.to_numpy(zero_copy_only=False)
    hashed = pd.util.hash_array(raw, categorize=False).astype(np.uint64)
    # One more round: pandas' hash of integers leaves their low bits alike.
    hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashed ^ (hashed >> np.uint64(27))


def shard_name(number: int) -> str:
    return f"part-{number:05}.parquet"
