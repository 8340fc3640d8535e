"""Raw item ids and the indexes that models know them by."""

import json
import os
import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.id_index import IdIndex, as_ids, dictionary_encode
from tfrec_llm.errors import DataFileError, NullValueError, UnknownItemError

PADDING, MASK, UNKNOWN, NUM_RESERVED = 0, 1, 2, 3

OnUnknown = Literal["raise", "warn", "ignore", "unknown"]

_FORMAT = b"tfrec_llm.vocabulary.1"


class Vocabulary:
    """Maps raw item ids to indexes and back.

    Index 0 is padding, 1 the mask, 2 "unknown"; items start at `NUM_RESERVED`. An index never
    changes its meaning: `extend` only appends.

    Args:
        ids: Unique raw ids, strings or integers; `ids[i]` gets the index `NUM_RESERVED + i`.
        counts: int64 `[size]`, how often each index was seen when the vocabulary was fitted,
            reserved ones first. Zeros when None.

    Attributes:
        ids: The raw ids, an Arrow array without the reserved indexes.
        counts: int64 `[size]`. `counts[UNKNOWN]` counts what `min_count` left out.

    Example:
        >>> vocabulary = Vocabulary.fit(["B4", "A13", "A13", "C7"])
        >>> vocabulary.encode(["A13", "C7"])
        array([3, 5], dtype=int32)
        >>> vocabulary.decode([4, UNKNOWN])
        array(['B4', None], dtype=object)
    """

    def __init__(self, ids: Any, *, counts: np.ndarray | None = None):
        self._index = IdIndex(ids, holder="vocabulary")
        if counts is None:
            counts = np.zeros(self.size, np.int64)
        self.counts = np.asarray(counts, np.int64)
        if self.counts.shape != (self.size,):
            raise ValueError(
                f"counts has the shape {self.counts.shape}; {len(self)} ids and {NUM_RESERVED} "
                f"reserved indexes need ({self.size},)."
            )

    @classmethod
    def fit(cls, ids: Any, *, min_count: int = 1) -> "Vocabulary":
        """Builds a vocabulary of the ids in a log, the most frequent first.

        Args:
            ids: The item of every behaviour: `log.item`, a list, or an array.
            min_count: Ids seen less often are left out; what they were seen is added up in
                `counts[UNKNOWN]`.

        Returns:
            The vocabulary. Ids of equal count stand in the order of their first appearance.

        Raises:
            NullValueError: If an id is missing.
            MixedTypeError: If the ids are of several types.
        """
        ids = as_ids(ids)
        if ids.null_count:
            raise NullValueError(
                f"{ids.null_count} of {len(ids)} ids are missing. Remove them with "
                "clean(log, [DropNulls()]) first."
            )
        codes, unique = dictionary_encode(ids)
        return cls.of_counts(unique, np.bincount(codes, minlength=len(unique)), min_count=min_count)

    @classmethod
    def of_counts(cls, ids: pa.Array, seen: np.ndarray, *, min_count: int = 1) -> "Vocabulary":
        """Builds the vocabulary of ids that are counted already, the most frequent first.

        Args:
            ids: Unique raw ids.
            seen: Integer `[n]`, how often each was seen.
            min_count: As in `fit`.
        """
        order = np.argsort(-seen, kind="stable")
        kept = order[seen[order] >= min_count]
        counts = np.zeros(NUM_RESERVED + len(kept), np.int64)
        counts[UNKNOWN] = seen.sum() - seen[kept].sum()
        counts[NUM_RESERVED:] = seen[kept]
        return cls(ids.take(pa.array(kept)), counts=counts)

    @property
    def ids(self) -> pa.Array:
        return self._index.ids

    @property
    def size(self) -> int:
        """Number of indexes, the reserved ones included: the `vocab_size` of models."""
        return NUM_RESERVED + len(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, raw_id: Any) -> bool:
        return bool(self._index.positions([raw_id])[0] >= 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.ids.equals(other.ids) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        first = ", ".join(repr(raw) for raw in self.ids[:3].to_pylist())
        more = ", ..." if len(self) > 3 else ""
        return f"Vocabulary({len(self):,} items: {first}{more})"

    def encode(self, ids: Any, *, on_unknown: OnUnknown = "raise") -> np.ndarray:
        """Returns the index of every id.

        Args:
            ids: Raw ids, a list or an array of length n.
            on_unknown: What to do with ids that are not in the vocabulary (a missing id is
                none): "raise", "warn", or silently ("ignore", "unknown") put the index
                `UNKNOWN` in their places.

        Returns:
            int32 `[n]`.

        Raises:
            UnknownItemError: If an id is unknown and `on_unknown` is "raise".
            MixedTypeError: If the ids are of another type than the vocabulary's.
        """
        if on_unknown not in ("raise", "warn", "ignore", "unknown"):
            raise ValueError(
                f'on_unknown must be "raise", "warn", "ignore" or "unknown", not {on_unknown!r}.'
            )
        values = self._index.as_own_type(ids)
        places = self._index.positions(values)
        unknown = places < 0
        if on_unknown in ("raise", "warn") and unknown.any():
            first = values[int(np.argmax(unknown))].as_py()
            message = (
                f"{unknown.sum()} of {len(places)} items are not in the vocabulary, "
                f"first {first!r}."
            )
            if on_unknown == "raise":
                raise UnknownItemError(
                    f'{message} Pass on_unknown="ignore" to skip them or extend() the model.'
                )
            warnings.warn(message, stacklevel=2)
        places += NUM_RESERVED
        places[unknown] = UNKNOWN
        return places.astype(np.int32)

    def decode(self, indexes: Any) -> np.ndarray:
        """Returns the raw id of every index.

        Args:
            indexes: Integers in `[0, size)`, of any shape.

        Returns:
            An array of the same shape. Reserved indexes become None; the array is of the ids'
            own NumPy type (int64) where there are none and ids are integers, else of objects.

        Raises:
            IndexError: If an index is out of range.
        """
        indexes = np.asarray(indexes, np.int64)
        flat = indexes.ravel()
        if flat.size and (flat.min() < 0 or flat.max() >= self.size):
            wrong = flat[(flat < 0) | (flat >= self.size)][0]
            raise IndexError(f"Index {wrong} is not in [0, {self.size}).")
        reserved = flat < NUM_RESERVED
        taken = self.ids.take(pa.array(flat - NUM_RESERVED, mask=reserved))
        if taken.null_count:
            raw = np.empty(len(flat), object)
            raw[:] = taken.to_pylist()
        else:
            raw = taken.to_numpy(zero_copy_only=False)
        return raw.reshape(indexes.shape)

    def extend(self, new_ids: Any) -> "Vocabulary":
        """Returns a vocabulary with `new_ids` appended; every old index keeps its meaning.

        Args:
            new_ids: Raw ids. Known ones and repeats are ignored.

        Returns:
            A new vocabulary; new ids have the count 0, as nothing was learned about them.

        Raises:
            NullValueError: If an id is missing.
            MixedTypeError: If the ids are of another type than the vocabulary's.
        """
        new_ids = self._index.as_own_type(new_ids)
        if new_ids.null_count:
            raise NullValueError(f"{new_ids.null_count} of {len(new_ids)} new ids are missing.")
        _, unique = dictionary_encode(new_ids)
        unique = unique.take(pa.array(np.flatnonzero(self._index.positions(unique) < 0)))
        ids = pa.concat_arrays([self.ids, unique]) if len(self) else unique
        return Vocabulary(ids, counts=np.append(self.counts, np.zeros(len(unique), np.int64)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary to one Parquet file; a file that was there is replaced whole."""
        table = pa.table({"id": self.ids, "count": self.counts[NUM_RESERVED:]})
        table = table.replace_schema_metadata(
            {
                b"format": _FORMAT,
                b"reserved_counts": json.dumps(self.counts[:NUM_RESERVED].tolist()).encode(),
            }
        )
        with replace_file(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Reads what `save` wrote.

        Raises:
            DataFileError: If the file is damaged or holds something else.
            FileNotFoundError: If there is no such file.
        """
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise DataFileError(f"{os.fspath(path)} cannot be read: {error}") from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"format") != _FORMAT:
            raise DataFileError(f"{os.fspath(path)} does not hold a vocabulary.")
        reserved = np.array(json.loads(metadata[b"reserved_counts"]), np.int64)
        counts = np.concatenate([reserved, table["count"].to_numpy()])
        return cls(table["id"], counts=counts)
