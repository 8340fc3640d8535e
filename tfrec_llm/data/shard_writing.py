"""How shards are written: rows shared out by user, and what has too few behaviours left out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
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

VALIDATION = "validation.parquet"
# Users are shared out by this many bits of their hash to validation, by others to the shards.
_BITS = 20


@dataclass(frozen=True)
class Places:
    """Which shard each user belongs to, in every process and on every machine the same.

    Attributes:
        num_shards: Number of shards.
        validation: Share of users kept apart; their place is `num_shards`.
    """

    num_shards: int
    validation: float

    def of(self, users: pa.ChunkedArray) -> np.ndarray:
        """Returns int64 places of the users of rows."""
        codes, names = dictionary_encode(users)
        hashes = _hashes(names)
        # Validation is told by the low bits, the shard by those above.
        bound = round(self.validation * (1 << _BITS))
        apart = (hashes & ((1 << _BITS) - 1)).astype(np.int64) < bound
        place = ((hashes >> np.uint64(_BITS)) % np.uint64(self.num_shards)).astype(np.int64)
        return np.where(apart, self.num_shards, place)[codes]


def check_complete(table: pa.Table) -> None:
    """Raises NullValueError if a row lacks its user, item or time."""
    for name in ("user", "item", "time"):
        if table[name].null_count:
            raise NullValueError(f"{table[name].null_count} rows lack their {name}.")


class RowsByShard:
    """Rows shared out to files, a part a shard, in the order they came."""

    def __init__(self, folder: Path, places: Places):
        self.folder = folder
        self.places = places
        self._items, self._kinds = RunningCounts(), RunningCounts()
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
        check_complete(table)
        num_shards = self.places.num_shards
        place = self.places.of(table["user"])
        trained = table.filter(pa.array(place < num_shards)) if self.places.validation else table
        self._items.add(trained["item"])
        if "behavior" in table.column_names:
            self._kinds.add(trained["behavior"])
        order = np.argsort(place, kind="stable")
        table = table.cast(self._schema).take(pa.array(order))
        bounds = np.searchsorted(place[order], np.arange(num_shards + 2))
        for number in range(num_shards + 1):
            first, last = bounds[number], bounds[number + 1]
            if last > first:
                self._writer(number).write_table(table.slice(first, last - first))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        if self._schema is None:
            raise EmptyLogError("The log has no rows.")

    def vocabulary(self, min_count: int) -> Vocabulary:
        return self._items.vocabulary(min_count)

    def kinds(self) -> list[str]:
        return self._kinds.vocabulary(1).ids.to_pylist()

    def write(
        self, folder: Path, vocabulary: Vocabulary, kinds: list[str]
    ) -> Iterator[UserSequences]:
        """Writes every shard, and what is kept apart; yields each shard's sequences."""
        for number in range(self.places.num_shards):
            yield write_shard(self._part(number), folder / shard_name(number), vocabulary, kinds)
            self._path(number).unlink(missing_ok=True)
        if self.places.validation:
            pq.write_table(
                self._part(self.places.num_shards), folder / VALIDATION, compression="zstd"
            )

    def each(self, function: Callable[[Path], np.ndarray], paths: list[Path]) -> Iterable[Any]:
        """Gives what a function makes of each path."""
        return map(function, paths)

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


def write_shard(
    rows: pa.Table, path: Path, vocabulary: Vocabulary, kinds: list[str]
) -> UserSequences:
    """Writes the sequences of a shard's rows, and returns them."""
    sequences = UserSequences.from_log(BehaviorLog(rows), vocabulary, behaviors=kinds or None)
    pq.write_table(sequences.to_arrow(), path, compression="zstd")
    return sequences


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

    def reduce(self, paths: list[Path], each: Callable[..., Iterable[Any]]) -> Vocabulary:
        """Rewrites the shards with what is left, and returns the vocabulary of that.

        Args:
            paths: The shards.
            each: Calls a function of a path with every path, here or on many machines.
        """
        assert self.core is not None
        counts = self.counts
        while True:
            alive = counts >= self.core.item
            alive[UNKNOWN] = False
            left = np.zeros_like(counts)
            for some in each(partial(_counts_in_core, alive=alive, least=self.core.user), paths):
                left += some
            if np.array_equal(left, np.where(alive, counts, 0)):
                break
            counts = left
        vocabulary = Vocabulary.of_counts(self.vocabulary.ids, left[NUM_RESERVED:])
        index = np.zeros(len(counts), np.int32)
        index[self.vocabulary.encode(vocabulary.ids)] = np.arange(NUM_RESERVED, vocabulary.size)
        write = partial(_write_core, alive=alive, least=self.core.user, index=index)
        self.lengths = list(each(write, paths))
        return vocabulary


def _counts_in_core(path: Path, alive: np.ndarray, least: int) -> np.ndarray:
    """Returns how often each item is left in a shard."""
    sequences = sequences_in(pq.read_table(path), ())
    kept = sequences.items[_in_core(sequences, alive, least)]
    return np.bincount(kept, minlength=len(alive))


def _write_core(path: Path, alive: np.ndarray, least: int, index: np.ndarray) -> np.ndarray:
    """Rewrites a shard with what is left, items by their new numbers; returns its lengths."""
    sequences = sequences_in(pq.read_table(path), ())
    kept = _in_core(sequences, alive, least)
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)[kept]
    sizes = np.bincount(rows, minlength=len(sequences))
    users = np.flatnonzero(sizes)
    assert sequences.user_ids is not None
    left = UserSequences(
        index[sequences.items[kept]],
        np.append(0, np.cumsum(sizes[users])),
        user_ids=sequences.user_ids.take(pa.array(users)),
        behaviors=None if sequences.behaviors is None else sequences.behaviors[kept],
        times=None if sequences.times is None else sequences.times[kept],
    )
    pq.write_table(left.to_arrow(), path, compression="zstd")
    return sizes[users]


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
