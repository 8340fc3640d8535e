"""Cleaning a log in steps, and the count of what each of them removed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.errors import EmptyLogError

if TYPE_CHECKING:
    import pandas as pd

CleaningStep = Callable[[BehaviorLog], np.ndarray]
"""Anything that tells of every row, by a boolean, whether it stays."""


@dataclass(frozen=True)
class StepCount:
    """What was there after a step.

    Attributes:
        step: Name of the step; `"as read"` for the log that came in.
        rows: Behaviours that were left.
        users: Different users among them.
        items: Different items among them.
    """

    step: str
    rows: int
    users: int
    items: int


@dataclass(frozen=True)
class CleaningReport:
    """What every step of a cleaning left; prints as a table.

    Attributes:
        counts: The log as it came, then a `StepCount` for every step, in order.
    """

    counts: tuple[StepCount, ...]

    def __str__(self) -> str:
        head = ("step", "rows", "removed", "users", "items")
        before = [None, *self.counts[:-1]]
        lines = [
            (
                count.step,
                f"{count.rows:,}",
                "" if last is None else f"{last.rows - count.rows:,}",
                f"{count.users:,}",
                f"{count.items:,}",
            )
            for last, count in zip(before, self.counts, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in (head, *lines)
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a row for every step: rows, users and items before and after it."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "step": after.step,
                    "rows_before": before.rows,
                    "rows_after": after.rows,
                    "users_before": before.users,
                    "users_after": after.users,
                    "items_before": before.items,
                    "items_after": after.items,
                }
                for before, after in zip(self.counts[:-1], self.counts[1:], strict=True)
            ]
        )


@dataclass(frozen=True)
class CleaningResult:
    """The cleaned log and the report of its cleaning.

    Attributes:
        log: The rows that stayed, in their order.
        report: What each step removed.
    """

    log: BehaviorLog
    report: CleaningReport


def clean(log: BehaviorLog, steps: Iterable[CleaningStep]) -> CleaningResult:
    """Applies steps one after the other and counts what each removes.

    Args:
        log: Any log; it does not change.
        steps: Steps such as `DropNulls()`, or functions that take a log and return a boolean
            for every row, True for those that stay.

    Returns:
        `CleaningResult(log, report)`.

    Raises:
        EmptyLogError: If the log has no rows, or a step leaves none; names the step.
        NullValueError: If a step needs users, items or times that are missing.

    Example:
        >>> import pyarrow as pa
        >>> from tfrec_llm.data import DropNulls, DropRepeats, KCore
        >>> table = pa.table({"user": [1, 1, 1, 2], "item": ["A", "B", "B", None]})
        >>> log = BehaviorLog.from_arrow(table, time=None)
        >>> result = clean(log, [DropNulls(), DropRepeats(), KCore(user=2, item=1)])
        >>> print(result.report)
        step                   rows  removed  users  items
        as read                   4               2      2
        drop nulls                3        1      1      2
        drop repeats              2        1      1      2
        k-core user 2, item 1     2        0      1      2
    """
    if not len(log):
        raise EmptyLogError("The log has no rows to clean.")
    counts = [_count("as read", log)]
    for step in steps:
        name = getattr(step, "name", None) or getattr(step, "__name__", None) or repr(step)
        kept = np.asarray(step(log))
        if kept.dtype != bool or kept.shape != (len(log),):
            raise TypeError(
                f"The step {name!r} returned {kept.dtype} of shape {kept.shape}; a step returns "
                f"a boolean for each of the {len(log):,} rows."
            )
        if not kept.all():
            log = log.take(kept)
        counts.append(_count(name, log))
        if not len(log):
            report = CleaningReport(tuple(counts))
            raise EmptyLogError(f"The step {name!r} removed all rows that were left.\n{report}")
    return CleaningResult(log, CleaningReport(tuple(counts)))


def _count(step: str, log: BehaviorLog) -> StepCount:
    return StepCount(step, len(log), log.num_users, log.num_items)
