"""Histories in an SQLite file: no server to run, for one machine."""

import contextlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence

from tfrec_llm.errors import StoreError
from tfrec_llm.serving.histories import MAX_EVENTS, Event, HistoryStore

# Seconds to wait for another process that writes.
_PATIENCE = 5.0

_TABLE = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL,
    id TEXT NOT NULL,
    time REAL NOT NULL,
    item TEXT NOT NULL,
    behavior TEXT NOT NULL,
    UNIQUE (user, id)
);
CREATE INDEX IF NOT EXISTS by_user_and_time ON events (user, time, seq);
CREATE INDEX IF NOT EXISTS by_time ON events (time);
"""
_ADD = "INSERT OR IGNORE INTO events (user, id, time, item, behavior) VALUES (?, ?, ?, ?, ?)"
_TRIM = """
DELETE FROM events WHERE seq IN (
    SELECT seq FROM events WHERE user = ? ORDER BY time DESC, seq DESC LIMIT -1 OFFSET ?
)
"""
_NEWEST = """
SELECT id, item, time, behavior FROM events
WHERE user = ? AND time >= ? ORDER BY time DESC, seq DESC LIMIT ?
"""


class SQLiteHistories(HistoryStore):
    """Keeps histories in an SQLite file with a write-ahead log.

    An event that `add` has returned for is on the disk: it survives a killed process and a power
    cut. Several processes of one machine may share the file.

    Args:
        path: The file, made where there is none; `":memory:"` for a store that ends with the
            process.
        max_events: See `HistoryStore`.
        max_age: See `HistoryStore`.

    Raises:
        StoreError: If the file cannot be opened or is of another kind.

    Example:
        >>> store = SQLiteHistories(":memory:", max_events=2)
        >>> _ = store.add([Event(str(time), "u7", f"i{time}", time) for time in range(4)])
        >>> [event.item for event in store.newest(["u7"], 10)["u7"]]
        ['i2', 'i3']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_events: int = MAX_EVENTS,
        max_age: float = math.inf,
    ):
        super().__init__(max_events=max_events, max_age=max_age)
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        self._readers = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._writer = self._open()
        with self._errors():
            self._writer.executescript(_TABLE)

    def add(self, events: Sequence[Event]) -> list[bool]:
        new = []
        with self._writing() as connection:
            for event in events:
                cursor = connection.execute(
                    _ADD, (event.user, event.id, event.time, event.item, event.behavior)
                )
                new.append(cursor.rowcount > 0)
            for user in {event.user for event, is_new in zip(events, new, strict=True) if is_new}:
                connection.execute(_TRIM, (user, self.max_events))
        return new

    def newest(
        self, users: Sequence[str], count: int, *, now: float | None = None
    ) -> dict[str, list[Event]]:
        oldest = (time.time() if now is None else now) - self.max_age
        with self._reading() as connection:
            found = {
                user: connection.execute(_NEWEST, (user, oldest, count)).fetchall()
                for user in users
            }
        return {
            user: [
                Event(id, user, item, moment, behavior)
                for id, item, moment, behavior in reversed(rows)
            ]
            for user, rows in found.items()
        }

    def erase(self, user: str) -> int:
        with self._writing() as connection:
            erased = connection.execute("DELETE FROM events WHERE user = ?", (user,)).rowcount
        with self._lock, self._errors():
            # Else what was erased still stands in the log.
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased

    def purge(self, *, now: float | None = None) -> int:
        if math.isinf(self.max_age):
            return 0
        oldest = (time.time() if now is None else now) - self.max_age
        with self._writing() as connection:
            return connection.execute("DELETE FROM events WHERE time < ?", (oldest,)).rowcount

    def close(self) -> None:
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    def _open(self) -> sqlite3.Connection:
        with self._errors():
            connection = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._opened.append(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            # A commit waits for the disk.
            connection.execute("PRAGMA synchronous = FULL")
            # What is erased is overwritten.
            connection.execute("PRAGMA secure_delete = ON")
            return connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self.path == ":memory:":  # every connection would have a memory of its own
            with self._lock, self._errors():
                yield self._writer
            return
        # With a write-ahead log, who reads does not wait for who writes.
        if not hasattr(self._readers, "connection"):
            self._readers.connection = self._open()
        with self._errors():
            yield self._readers.connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"The histories in {self.path} cannot be used: {error}.") from error
