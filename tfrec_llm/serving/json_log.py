"""Log lines that machines read."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

# What every record has; the rest is what was added to it.
_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Writes a log record as one line of JSON, with the facts that were added to it.

    Of an exception its type is told, not what it says, which may name a user.

    Example:
        >>> record = logging.makeLogRecord({"msg": "request", "status": 200})
        >>> json.loads(JsonLines().format(record))["status"]
        200
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        return json.dumps(line, default=str)
