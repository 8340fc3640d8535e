"""What every user did, oldest first, as flat arrays."""

import itertools
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.id_index import IdIndex, as_ids, dictionary_encode
from tfrec_llm.data.vocabulary import UNKNOWN, OnUnknown, Vocabulary
from tfrec_llm.errors import DataFileError, UnknownUserError

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog

_FORMAT = "tfrec_llm.sequences.1"
_COLUMNS = ("items", "behaviors", "times")


class UserSequences:
    """The behaviours of n users, oldest first, as flat values plus offsets.

    User i's items are `items[offsets[i]:offsets[i + 1]]`. The arrays may be memory-mapped.

    Args:
        items: int32 `[flat]`, indexes of a `Vocabulary`.
        offsets: int64 `[n + 1]`, from 0 to the length of `items`, never falling.
        user_ids: The raw ids of the users, unique, `[n]`; None where users have no names.
        behaviors: int32 `[flat]`: 0 where the kind of behaviour is not known, else 1 plus its
            place in `behavior_vocabulary`.
        times: int64 `[flat]`, in the log's unit.
        behavior_vocabulary: Names of the kinds of behaviour.

    Raises:
        ValueError: If the arrays do not fit together.

    Example:
        >>> vocabulary = Vocabulary(["A13", "B4", "C7"])
        >>> sequences = UserSequences.from_histories([["A13", "C7"], ["B4"]], vocabulary)
        >>> sequences[0], sequences.lengths
        (array([3, 5], dtype=int32), array([2, 1]))
    """

    def __init__(
        self,
        items: np.ndarray,
        offsets: np.ndarray,
        *,
        user_ids: Any = None,
        behaviors: np.ndarray | None = None,
        times: np.ndarray | None = None,
        behavior_vocabulary: Sequence[str] = (),
    ):
        self.items = items
        self.offsets = offsets
        self.behaviors = behaviors
        self.times = times
        self.behavior_vocabulary = tuple(behavior_vocabulary)
        self._users = None if user_ids is None else IdIndex(user_ids, holder="sequences")
        if offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
            raise ValueError(
                f"offsets must rise from 0 to the number of items, {len(items)}; they go from "
                f"{offsets[0]} to {offsets[-1]}."
            )
        if self._users is not None and len(self._users) != len(self):
            raise ValueError(f"{len(self._users)} user ids were given for {len(self)} users.")
        for name, values in (("behaviors", behaviors), ("times", times)):
            if values is not None and len(values) != len(items):
                raise ValueError(f"{len(values)} {name} were given for {len(items)} items.")

    @classmethod
    def from_log(
        cls,
        log: "BehaviorLog",
        vocabulary: Vocabulary,
        *,
        on_unknown: OnUnknown = "unknown",
        behaviors: Sequence[str] | None = None,
    ) -> "UserSequences":
        """Collects every user's behaviours from a log.

        Args:
            log: Behaviours in any order. Those of equal time keep the log's row order.
            vocabulary: Gives the items their indexes.
            on_unknown: Items that are not in the vocabulary get the index `UNKNOWN`
                ("unknown"), are left out ("ignore", or with a warning "warn"), or are an error
                ("raise"). A user of whom nothing is left keeps an empty sequence.
            behaviors: The kinds of behaviour to number, for instance those a model was trained
                with; others become 0. Defaults to the log's own, the most frequent first.

        Returns:
            The sequences, users in the order of their first appearance in the log.

        Raises:
            NullValueError: If a row lacks its user, item or time.
            UnknownItemError: If an item is unknown and `on_unknown` is "raise".
        """
        log.require_complete()
        codes, users = log.user_codes()
        order = log.order()
        items = vocabulary.encode(
            log.item, on_unknown="raise" if on_unknown == "raise" else "unknown"
        )[order]
        lengths = np.bincount(codes, minlength=len(users))
        times = log.times()[order]
        kinds = None
        names: tuple[str, ...] = ()
        if log.has("behavior"):
            kinds, names = _number_behaviors(log.table["behavior"], behaviors)
            kinds = kinds[order]
        if on_unknown in ("ignore", "warn"):
            known = _known(items, on_unknown)
            lengths = np.bincount(codes[order][known], minlength=len(users))
            items, times = items[known], times[known]
            kinds = None if kinds is None else kinds[known]
        return cls(
            items,
            _offsets(lengths),
            user_ids=users,
            behaviors=kinds,
            times=times,
            behavior_vocabulary=names,
        )

    @classmethod
    def from_histories(
        cls,
        histories: Iterable[Sequence[Any]],
        vocabulary: Vocabulary,
        *,
        on_unknown: OnUnknown = "raise",
    ) -> "UserSequences":
        """Takes histories of raw item ids, oldest first, one of each user; they may be empty.

        Args:
            histories: n lists of raw ids.
            vocabulary: Gives the items their indexes.
            on_unknown: As in `from_log`, but an error by default.

        Raises:
            UnknownItemError: If an item is unknown and `on_unknown` is "raise".
            TypeError: If a single history was given in place of a list of them.
        """
        histories = list(histories)
        single = next((one for one in histories if not _is_list(one)), None)
        if single is not None:
            raise TypeError(
                f"Expected a list of histories, each a list of item ids; found {single!r} in "
                'place of a history. One user\'s history is written [["A13", "B4"]].'
            )
        lengths = np.fromiter((len(one) for one in histories), np.int64, len(histories))
        raw: Any = list(itertools.chain.from_iterable(histories))
        items = vocabulary.encode(raw, on_unknown="raise" if on_unknown == "raise" else "unknown")
        if on_unknown in ("ignore", "warn"):
            known = _known(items, on_unknown)
            rows = np.repeat(np.arange(len(lengths)), lengths)[known]
            lengths = np.bincount(rows, minlength=len(lengths))
            items = items[known]
        return cls(items, _offsets(lengths))

    @property
    def user_ids(self) -> pa.Array | None:
        return None if self._users is None else self._users.ids

    @property
    def lengths(self) -> np.ndarray:
        """int64 `[n]`, the number of behaviours of every user."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        if not -len(self) <= row < len(self):
            raise IndexError(f"Row {row} is not among {len(self)} users.")
        row %= len(self)
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def __repr__(self) -> str:
        return f"UserSequences({len(self):,} users, {len(self.items):,} behaviours)"

    def take(self, rows: Any) -> "UserSequences":
        """Returns the sequences of the users at `rows` (int `[m]`, or bool `[n]`), in that order.

        A row that is taken twice makes a sequence without its user's name, as names are unique.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(f"A mask of {rows.shape} was given for {len(self)} users.")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64, copy=False)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"Rows from {rows.min()} to {rows.max()} of {len(self)} users.")
        rows = np.where(rows < 0, rows + len(self), rows)
        users = self.user_ids
        if users is not None:
            repeated = len(np.unique(rows)) < len(rows)
            users = None if repeated else users.take(pa.array(rows))
        return self._gather(self.offsets[rows], self.lengths[rows], users)

    def rows_of(self, users: Any) -> np.ndarray:
        """Returns the row of each user named, int64 `[m]`, -1 for those that are not here.

        Args:
            users: Raw user ids `[m]`.

        Raises:
            UnknownUserError: If the sequences do not know the names of their users.
            MixedTypeError: If the ids are of another type than the sequences'.
        """
        if self._users is None:
            raise UnknownUserError("These sequences do not know the names of their users.")
        return self._users.positions(as_ids(users))

    def newest(self, n: int) -> "UserSequences":
        """Returns the last `n` behaviours of every user."""
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}.")
        lengths = np.minimum(self.lengths, n)
        return self._gather(self.offsets[1:] - lengths, lengths, self.user_ids)

    def before(self, places: np.ndarray) -> "UserSequences":
        """Returns what users had done before some of their behaviours.

        Args:
            places: Integer `[m]`, places in the flat arrays.

        Returns:
            m sequences without users' names; that of a user's first behaviour is empty.

        Example:
            >>> vocabulary = Vocabulary(["A13", "B4"])
            >>> sequences = UserSequences.from_histories([["A13", "B4"], ["B4"]], vocabulary)
            >>> sequences.before(np.array([1, 2])).lengths
            array([1, 0])
        """
        rows = np.searchsorted(self.offsets, places, side="right") - 1
        starts = self.offsets[rows]
        return self._gather(starts, places - starts, None)

    def select(
        self, users: Any, *, on_unknown: Literal["raise", "empty"] = "raise"
    ) -> "UserSequences":
        """Returns the sequences of the users named, in the order of the names.

        Args:
            users: Raw user ids `[m]`.
            on_unknown: "raise" an error for users that are not here, or give them "empty"
                sequences.

        Raises:
            UnknownUserError: If a user is unknown and `on_unknown` is "raise".
            MixedTypeError: If the ids are of another type than the sequences'.
        """
        if on_unknown not in ("raise", "empty"):
            raise ValueError(f'on_unknown must be "raise" or "empty", not {on_unknown!r}.')
        names = as_ids(users)
        rows = self.rows_of(names)
        unknown = rows < 0
        if on_unknown == "raise" and unknown.any():
            first = names[int(np.argmax(unknown))].as_py()
            raise UnknownUserError(
                f"{unknown.sum()} of {len(rows)} users have no known history, first {first!r}. "
                'recommend() leaves them out with on_unknown="ignore" and takes new users by '
                'histories=; select() gives them empty histories with on_unknown="empty".'
            )
        if not len(self):
            starts = lengths = np.zeros(len(rows), np.int64)
        else:
            starts = np.where(unknown, 0, self.offsets[rows])
            lengths = np.where(unknown, 0, self.lengths[rows])
        unique = names.null_count == 0 and pc.count_distinct(names).as_py() == len(names)
        return self._gather(starts, lengths, names if unique else None)

    def to_arrow(self) -> pa.Table:
        """Returns a table of one row a user: user (where known), and list columns."""
        columns: dict[str, Any] = {} if self.user_ids is None else {"user": self.user_ids}
        large = len(self.items) >= 2**31
        offsets = pa.array(self.offsets, pa.int64() if large else pa.int32())
        lists = pa.LargeListArray if large else pa.ListArray
        for name in _COLUMNS:
            values = getattr(self, name)
            if values is not None:
                columns[name] = lists.from_arrays(offsets, pa.array(values))
        return pa.table(columns)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the sequences to a folder that `load` can memory-map.

        A folder that was there is replaced whole; it stays if the writing fails.
        """
        arrays = {name: getattr(self, name) for name in ("offsets", *_COLUMNS)}
        arrays = {name: values for name, values in arrays.items() if values is not None}
        description = {
            "format": _FORMAT,
            "arrays": list(arrays),
            "named_users": self.user_ids is not None,
            "behavior_vocabulary": self.behavior_vocabulary,
        }
        with replace_folder(folder) as temporary:
            for name, values in arrays.items():
                np.save(temporary / f"{name}.npy", values)
            if self.user_ids is not None:
                users = pa.table({"user": self.user_ids})
                pq.write_table(users, temporary / "users.parquet", compression="zstd")
            (temporary / "sequences.json").write_text(json.dumps(description))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, mmap: bool = True) -> "UserSequences":
        """Reads what `save` wrote.

        Args:
            folder: Where it was written.
            mmap: Whether to map the arrays from disk instead of reading them into memory.

        Raises:
            DataFileError: If a file is missing, damaged, or holds something else.
            FileNotFoundError: If there is no such folder.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
        try:
            description = json.loads((folder / "sequences.json").read_text())
            if description["format"] != _FORMAT:
                raise ValueError(f"its format is {description['format']!r}, not {_FORMAT!r}")
            mode: Any = "r" if mmap else None
            arrays: dict[str, Any] = {
                name: np.load(folder / f"{name}.npy", mmap_mode=mode)
                for name in description["arrays"]
            }
            users = None
            if description["named_users"]:
                users = pq.ParquetFile(folder / "users.parquet").read()["user"]
            return cls(
                **arrays,
                user_ids=users,
                behavior_vocabulary=description["behavior_vocabulary"],
            )
        except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
            raise DataFileError(f"{folder} does not hold whole sequences: {error}") from error

    def _gather(self, starts: np.ndarray, lengths: np.ndarray, users: Any) -> "UserSequences":
        offsets = _offsets(lengths)
        places = np.repeat(starts - offsets[:-1], lengths)
        places += np.arange(len(places))
        return UserSequences(
            self.items[places],
            offsets,
            user_ids=users,
            behaviors=None if self.behaviors is None else self.behaviors[places],
            times=None if self.times is None else self.times[places],
            behavior_vocabulary=self.behavior_vocabulary,
        )


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _is_list(history: Any) -> bool:
    return hasattr(history, "__len__") and not isinstance(history, str | bytes | dict)


def _known(items: np.ndarray, on_unknown: str) -> np.ndarray:
    known = items != UNKNOWN
    if on_unknown == "warn" and not known.all():
        warnings.warn(
            f"{(~known).sum()} of {len(items)} behaviours are left out: "
            "their items are not in the vocabulary.",
            stacklevel=3,
        )
    return known


def _number_behaviors(
    column: pa.ChunkedArray, names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns (int32 number of every row's kind, the names that are numbered 1, 2, ...)."""
    codes, present = dictionary_encode(as_ids(column))
    if names is None:
        seen = np.bincount(codes[codes >= 0], minlength=len(present))
        names = [present[int(i)].as_py() for i in np.argsort(-seen, kind="stable")]
    numbers = {name: number for number, name in enumerate(names, start=1)}
    # The last entry serves the code -1 of rows without a kind.
    of_code = np.array([*(numbers.get(name, 0) for name in present.to_pylist()), 0], np.int32)
    return of_code[codes], tuple(names)


def padded_rows(values: np.ndarray, lengths: np.ndarray, *, fill: int) -> np.ndarray:
    """Returns lists that stand one after the other as int64 `[lists, longest]`, filled up."""
    table = np.full((len(lengths), int(lengths.max(initial=0))), fill, np.int64)
    table[np.arange(table.shape[1]) < lengths[:, None]] = values
    return table
