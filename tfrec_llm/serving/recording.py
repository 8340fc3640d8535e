"""A record of what was recommended and what came of it, for those who watch the shop."""

import datetime
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.errors import StoreError
from tfrec_llm.serving.histories import Event
from tfrec_llm.serving.user_key import UserKey

_log = logging.getLogger("tfrec_llm.serving")

LISTS, EVENTS = "lists", "events"
_MOMENT = pa.timestamp("us", "UTC")
SCHEMAS = {
    LISTS: pa.schema(
        [
            ("time", _MOMENT),
            ("user", pa.string()),
            ("version", pa.int64()),
            ("source", pa.string()),
            ("milliseconds", pa.float32()),
            ("history_length", pa.int32()),
            ("history", pa.list_(pa.string())),
            ("behaviors", pa.list_(pa.string())),
            ("items", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
        ]
    ),
    EVENTS: pa.schema(
        [("time", _MOMENT), ("user", pa.string()), ("item", pa.string()), ("behavior", pa.string())]
    ),
}
# A file is named by the moment it was begun, so that old ones are told without opening them.
FILE_NAME = "%Y%m%dT%H%M%S.%f"
# Newest behaviours of a history that are kept with a list.
_HISTORY = 200
# Rows that wait for the disk at most.
_WAITING = 100_000


class Recorder:
    """Writes lists and events to Parquet files, beside the requests.

    Rows are gathered in memory and written by a thread: a file every so many rows or seconds,
    there whole or not at all. What a killed process had gathered is lost. A full or broken disk
    loses rows, too, and no request. Users stand in it by keyed hashes.

    Args:
        folder: Gets the folders `lists` and `events`. Several servers may share it.
        key: Names the users; with the server's own log key, both name them alike.
        max_rows: Rows of a file.
        max_seconds: Seconds after which a file is written, however few rows there are.
        keep_days: Days after which a file is removed; None keeps all.

    Attributes:
        observe: Is told how many rows were `"written"` or `"dropped"`.

    Raises:
        ValueError: If a limit is not above 0.
        OSError: If the folder cannot be made.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> recorder = Recorder(folder)
        >>> recorder.add_events([Event("e1", "anna", "A13", 5.0)])
        >>> recorder.close()
        >>> table = pq.read_table(f"{folder}/events")
        >>> table["item"].to_pylist(), "anna" in table["user"].to_pylist()
        (['A13'], False)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        key: UserKey | None = None,
        max_rows: int = 10_000,
        max_seconds: float = 60.0,
        keep_days: float | None = None,
    ):
        if max_rows < 1 or not max_seconds > 0 or (keep_days is not None and not keep_days > 0):
            raise ValueError(
                f"max_rows, max_seconds and keep_days must be above 0, got {max_rows}, "
                f"{max_seconds} and {keep_days}."
            )
        self.folder = Path(folder)
        self.observe: Callable[[str, int], None] = lambda outcome, rows: None
        self._key = key or UserKey()
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._keep_days = keep_days
        for kind in SCHEMAS:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in SCHEMAS}
        self._adding = threading.Lock()
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def add_list(
        self,
        *,
        user: str | None,
        version: int,
        source: str,
        seconds: float,
        history: Sequence[Any] | None,
        behaviors: Sequence[str] | None,
        items: Sequence[Any],
        scores: Sequence[float | None],
    ) -> None:
        """Adds a list that was recommended now.

        Args:
            user: Raw id; None for a visitor without one.
            version: Of the model.
            source: Which way the list was made.
            seconds: How long that took.
            history: Raw ids of what the user had done, oldest first; None where that was not
                found out.
            behaviors: Their kinds.
            items: Raw ids, the best first.
            scores: Their scores.
        """
        known = None if history is None else [str(item) for item in history[-_HISTORY:]]
        kinds = None if known is None or behaviors is None else list(behaviors[-_HISTORY:])
        row = (
            _moment(time.time()),
            None if user is None else self._key.of(user),
            version,
            source,
            1e3 * seconds,
            None if history is None else len(history),
            known,
            kinds,
            [str(item) for item in items],
            list(scores),
        )
        self._add(LISTS, [row])

    def add_events(self, events: Sequence[Event]) -> None:
        """Adds what users did."""
        rows = [
            (_moment(event.time), self._key.of(event.user), event.item, event.behavior)
            for event in events
        ]
        self._add(EVENTS, rows)

    def flush(self) -> None:
        """Writes what was added."""
        with self._writing:
            self._write()

    def erase(self, user: str) -> int:
        """Takes a user's rows out of all files, and returns how many that were.

        Args:
            user: Raw id. Rows that were written under another key are not found.

        Raises:
            StoreError: If a file cannot be rewritten, so that the user may still stand in it; the
                others are.
        """
        name = self._key.of(user)
        erased = 0
        failed: list[str] = []
        with self._writing:
            self._write()
            for path in self._files():
                try:
                    erased += _without(path, name)
                except FileNotFoundError:  # another server has removed it
                    continue
                except (OSError, pa.ArrowException) as error:
                    failed.append(f"{path}: {error}")
        if failed:
            _log.error("user not erased from the record", extra={"files": failed})
            raise StoreError(f"A user may still stand in {failed[0]}")
        return erased

    def close(self) -> None:
        """Writes what was added, and ends."""
        self._closed = True
        self._wanted.set()
        self._thread.join()
        self.flush()

    def _add(self, kind: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._adding:
            waiting = self._rows[kind]
            if len(waiting) + len(rows) <= _WAITING:
                waiting.extend(rows)
                rows = ()
            full = len(waiting) >= self._max_rows
        if rows:
            self.observe("dropped", len(rows))
        if full:
            self._wanted.set()

    def _work(self) -> None:
        while not self._closed:
            self._wanted.wait(self._max_seconds)
            self._wanted.clear()
            self.flush()
            self._remove_old()

    def _write(self) -> None:
        for kind, schema in SCHEMAS.items():
            with self._adding:
                rows, self._rows[kind] = self._rows[kind], []
            if not rows:
                continue
            name = (
                f"{datetime.datetime.now(datetime.UTC).strftime(FILE_NAME)}-{os.urandom(4).hex()}"
            )
            try:
                columns = [
                    pa.array(column, field.type)
                    for column, field in zip(zip(*rows, strict=True), schema, strict=True)
                ]
                with replace_file(self.folder / kind / f"{name}.parquet") as temporary:
                    pq.write_table(
                        pa.Table.from_arrays(columns, schema=schema), temporary, compression="zstd"
                    )
                self.observe("written", len(rows))
            except (OSError, ValueError, pa.ArrowException) as error:
                _log.error("record not written", extra={"reason": type(error).__name__})
                self.observe("dropped", len(rows))

    def _files(self) -> Sequence[Path]:
        return [
            path for kind in SCHEMAS for path in sorted((self.folder / kind).glob("2*.parquet"))
        ]

    def _remove_old(self) -> None:
        if self._keep_days is None:
            return
        age = datetime.timedelta(days=self._keep_days)
        oldest = (datetime.datetime.now(datetime.UTC) - age).strftime(FILE_NAME)
        for path in self._files():
            if path.name < oldest:
                path.unlink(missing_ok=True)


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _without(path: Path, user: str) -> int:
    """Rewrites a file without a user's rows; one without any stays as it is."""
    users = pq.read_table(path, columns=["user"])["user"]
    is_user = pc.fill_null(pc.equal(users, user), False)
    count = pc.sum(is_user).as_py() or 0
    if count:
        kept = pq.read_table(path).filter(pc.invert(is_user))
        with replace_file(path) as temporary:
            pq.write_table(kept, temporary, compression="zstd")
    return count
