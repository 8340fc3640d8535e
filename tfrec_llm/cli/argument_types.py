"""What the text of an argument is turned into, and what is refused."""

import argparse
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """Returns a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def at_least_two(text: str) -> int:
    """Returns a whole number of 2 or more."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text} is below 2")
    return number


def whole(text: str) -> int:
    """Returns a whole number of 0 or more."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def rate(text: str) -> float:
    """Returns a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text: str) -> float:
    """Returns a number from 0 to below 1."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return number


def lengths(text: str) -> tuple[int, ...]:
    """Returns lengths of lists, such as those of `5,10`."""
    return tuple(positive(part) for part in text.split(","))


def names(text: str) -> list[str]:
    """Returns what stands between commas."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise argparse.ArgumentTypeError("there is nothing between the commas")
    return found


def table_file(text: str) -> Path:
    """Returns the path of a `.csv` or `.parquet` file to write."""
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise argparse.ArgumentTypeError(f"{text} must end in .csv or .parquet")
    return path


def number_or_text(text: str) -> Any:
    """Returns an int or a float where the text is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# Argparse says "invalid <name> value" where a conversion fails.
positive.__name__ = at_least_two.__name__ = whole.__name__ = "whole number"
rate.__name__ = share.__name__ = "number"
lengths.__name__ = "list of whole numbers"
