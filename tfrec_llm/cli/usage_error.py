"""The error of a command that was called in a wrong way."""


class UsageError(Exception):
    """Arguments that do not go together; the message says which and what to do."""
