"""What users did by now: events as they come in, kept where a server finds them at once."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Length of the lists that a server keeps of each user, unless told otherwise.
MAX_EVENTS = 500


@dataclass(frozen=True)
class Event:
    """One behaviour of one user.

    Attributes:
        id: Told apart by it: a user's event is kept once, however often it is sent.
        user: Raw id, as text.
        item: Raw id, as text.
        time: Seconds since 1970, UTC.
        behavior: Its kind, such as `"view"`; empty where not known.
    """

    id: str
    user: str
    item: str
    time: float
    behavior: str = ""


class HistoryStore(abc.ABC):
    """Keeps each user's newest events, ordered by time; those of equal time as they came.

    What `add` has returned for is kept, whatever happens to the process. Calls may come from
    several threads.

    Args:
        max_events: Newest events kept of a user.
        max_age: Seconds after which an event is forgotten; infinite by default.

    Raises:
        ValueError: If a limit is not above 0.

    Example:
        >>> from tfrec_llm.serving import SQLiteHistories
        >>> store = SQLiteHistories(":memory:")
        >>> store.add([Event("1", "u7", "A13", 5.0), Event("2", "u7", "B4", 3.0)])
        [True, True]
        >>> store.add([Event("1", "u7", "A13", 5.0)])
        [False]
        >>> [event.item for event in store.newest(["u7"], 10, now=6.0)["u7"]]
        ['B4', 'A13']
        >>> store.erase("u7")
        2
    """

    def __init__(self, *, max_events: int = MAX_EVENTS, max_age: float = math.inf):
        if max_events < 1 or not max_age > 0:
            raise ValueError(
                f"max_events and max_age must be above 0, got {max_events} and {max_age}."
            )
        self.max_events = max_events
        self.max_age = max_age

    @abc.abstractmethod
    def add(self, events: Sequence[Event]) -> list[bool]:
        """Keeps events for good, all or none.

        Returns:
            Of each event whether it is new; one whose id the user has already changes nothing.

        Raises:
            StoreError: If the store cannot be written. None of the events is kept, or all are
                after a connection broke: sending them again does no harm.
        """

    @abc.abstractmethod
    def newest(
        self, users: Sequence[str], count: int, *, now: float | None = None
    ) -> dict[str, list[Event]]:
        """Returns the newest events of users, oldest first; users without any have none.

        Args:
            users: Raw ids, as text.
            count: Most events of each.
            now: The time from which events' age counts; None for the clock's.

        Raises:
            StoreError: If the store cannot be read.
        """

    @abc.abstractmethod
    def erase(self, user: str) -> int:
        """Erases all that is kept of a user, and returns how many events that were.

        Raises:
            StoreError: If the store cannot be written.
        """

    @abc.abstractmethod
    def purge(self, *, now: float | None = None) -> int:
        """Erases events that are too old, and returns how many that were."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of files and connections."""
