"""Errors the library raises; each message says what is wrong, where, and what to do."""


class TfrecError(Exception):
    """Base of every error that the library raises on purpose."""


class DataError(TfrecError, ValueError):
    """Input data that cannot be used as it is."""


class MissingColumnError(DataError):
    """A named column is not in the table."""


class EmptyLogError(DataError):
    """A behaviour log, or what a split or a cleaning left of it, has no rows."""


class NullValueError(DataError):
    """Rows lack a user, an item or a time."""


class MixedTypeError(DataError):
    """A column holds values of several types."""


class DataFileError(DataError):
    """A file cannot be read: truncated, damaged, or not what its name says."""


class DatasetNotFoundError(TfrecError, FileNotFoundError):
    """A named data set is neither in the package nor where it was looked for."""


class UnknownItemError(TfrecError, LookupError):
    """Items that the vocabulary does not hold."""


class UnknownUserError(TfrecError, LookupError):
    """Users whose history is not known."""


class NotFittedError(TfrecError, RuntimeError):
    """A model was asked for scores before it was fitted or loaded."""


class SavedModelError(TfrecError, OSError):
    """A saved model cannot be read or written whole."""


class StoreError(TfrecError, OSError):
    """A store of histories cannot be read or written."""
