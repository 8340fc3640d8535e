"""Lengths of time in the unit of a log's times."""

import datetime
from typing import cast

import numpy as np
import pyarrow as pa

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.errors import DataError

Duration = datetime.timedelta | np.timedelta64 | str | int | float


def duration_of(log: BehaviorLog, value: Duration, argument: str) -> float:
    """Returns a duration in the unit of `log.times()`.

    Args:
        log: Whose times the duration is measured in.
        value: A timedelta or a string such as `"30min"` for times of day, a number in their unit
            for times that are numbers.
        argument: What the value is called where it was given, for the error.

    Raises:
        DataError: If the value does not fit the log's times.

    Example:
        >>> log = BehaviorLog.from_arrow(pa.table({"user": [1], "item": ["A"], "time": [0.5]}))
        >>> duration_of(log, 30, "gap")  # seconds with a fraction become microseconds
        30000000.0
    """
    kind = log.column("time").type
    # NumPy counts its timedelta64 among its integers.
    number = isinstance(value, int | float | np.number) and not isinstance(value, np.timedelta64)
    if not pa.types.is_timestamp(kind):
        if not number:
            raise DataError(
                f"{argument} is {value!r}, but the log's times are {kind} numbers of no known "
                "unit. Give a number in their unit."
            )
        return float(cast(float, value)) * (1e6 if pa.types.is_floating(kind) else 1)
    if number:
        raise DataError(
            f"{argument} is {value!r}, but the log's times are timestamps. Give a timedelta or "
            'a string such as "30min".'
        )
    import pandas as pd

    try:
        return pd.Timedelta(value) / pd.Timedelta(microseconds=1)
    except ValueError as error:
        raise DataError(f'{argument} is {value!r}; it is no duration as "30min" is.') from error
