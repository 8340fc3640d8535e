"""Behaviour logs and catalogues in files, as the arguments of a command name them."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.errors import DataFileError

if TYPE_CHECKING:
    import pyarrow as pa

    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.data.feature_table import Catalogue

_KINDS = {
    "parquet": re.compile(r"\.(parquet|parq|pq)$", re.IGNORECASE),
    "csv": re.compile(r"\.(csv|tsv|txt)(\.(gz|bz2|zst|lz4|br))?$", re.IGNORECASE),
}
_DEFAULTS: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "time": "time",
    "behavior": None,
    "ids": None,
    "format": None,
    "delimiter": ",",
    "encoding": "utf-8",
}

# How tables beside the log are read where nothing says otherwise.
PLAIN: dict[str, Any] = {"format": None, "delimiter": ",", "encoding": "utf-8"}


def add_log_arguments(parser: argparse.ArgumentParser, *, recorded: bool = False) -> None:
    """Adds the files of a log and how to read them.

    Args:
        parser: Of a command.
        recorded: Whether a saved model says what the defaults are.
    """
    parser.add_argument(
        "log", nargs="+", metavar="LOG", help="CSV or Parquet files, or folders of them"
    )
    group = parser.add_argument_group(
        "reading the log", "as the model was trained, where not given" if recorded else None
    )
    for role in ("user", "item", "time"):
        default = "" if recorded else f" (default: {role})"
        group.add_argument(f"--{role}", metavar="COLUMN", help=f"column of the {role}s{default}")
    group.add_argument(
        "--no-time",
        dest="time",
        action="store_const",
        const="",
        help="there is no such column: the rows stand in order of time",
    )
    group.add_argument(
        "--behavior", metavar="COLUMN", help="column of the kind: view, cart, purchase, ..."
    )
    group.add_argument(
        "--ids", choices=["string"], help="take all ids as text, where a column mixes types"
    )
    group.add_argument(
        "--format", choices=sorted(_KINDS), help="of the files, where their names do not say it"
    )
    group.add_argument("--delimiter", help="of the fields of a CSV file (default: a comma)")
    group.add_argument("--encoding", help="of a CSV file (default: utf-8)")


def reading_options(
    arguments: argparse.Namespace, recorded: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns how to read the log: what was given, else what a model recorded, else defaults."""
    options = _DEFAULTS | dict(recorded or {})
    for name in _DEFAULTS:
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if options["delimiter"] == "\\t":
        options["delimiter"] = "\t"
    return options


def read_log(
    paths: list[str], options: Mapping[str, Any], *, catalogue: "Catalogue | None" = None
) -> "BehaviorLog":
    """Reads a log.

    Args:
        paths: Files and folders.
        options: Of `reading_options`.
        catalogue: What is known of the items.
    """
    from tfrec_llm.data.behavior_log import BehaviorLog

    columns: dict[str, Any] = {name: options[name] for name in ("user", "item", "behavior", "ids")}
    columns |= {"time": options["time"] or None, "catalogue": catalogue}
    if _kind(paths, options["format"]) == "parquet":
        return BehaviorLog.from_parquet(paths, **columns)
    return BehaviorLog.from_csv(
        paths, delimiter=options["delimiter"], encoding=options["encoding"], **columns
    )


def read_whole_log(paths: list[str], options: Mapping[str, Any]) -> "BehaviorLog":
    """Reads a log and all the other columns that its files have, too."""
    from tfrec_llm.data.behavior_log import BehaviorLog

    roles: dict[str, Any] = {
        name: options[name] or None for name in ("user", "item", "time", "behavior")
    }
    table = read_table(
        paths, options, id_names=[options["user"], options["item"]], ids=options["ids"]
    )
    others = [name for name in table.column_names if name not in roles.values()]
    return BehaviorLog.from_arrow(table, **roles, ids=options["ids"], context=others)


def read_catalogue(
    path: str, options: Mapping[str, Any], *, key: str, ids: str | None
) -> "Catalogue":
    """Reads what is known of the items from a CSV or Parquet file."""
    from tfrec_llm.data.feature_table import Catalogue

    return Catalogue(
        read_table([path], {**options, "format": None}, id_names=[key], ids=ids), key=key, ids=ids
    )


def read_table(
    paths: list[str], options: Mapping[str, Any], *, id_names: list[str], ids: str | None
) -> "pa.Table":
    """Reads all columns of files."""
    from tfrec_llm.data.reading import read_csv, read_parquet

    if _kind(paths, options["format"]) == "parquet":
        return read_parquet(paths, id_names=id_names, ids=ids)
    return read_csv(
        paths,
        id_names=id_names,
        ids=ids,
        delimiter=options["delimiter"],
        encoding=options["encoding"],
    )


def write_table(table: "pa.Table", path: Path) -> None:
    """Writes a table as Parquet or CSV, by the ending of `path`, whole or not at all."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    from tfrec_llm.data.atomic import replace_file

    with replace_file(path) as temporary:
        if path.suffix.lower() == ".parquet":
            pq.write_table(table, temporary, compression="zstd")
            return
        for place, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):
                plain = table.column(place).cast(field.type.value_type)
                table = table.set_column(place, field.name, plain)
        pacsv.write_csv(table, temporary)


def _kind(paths: list[str], chosen: str | None) -> str:
    if chosen is not None:
        return chosen
    kinds: dict[str, str] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise DataFileError(f"There is no file or folder {path}.")
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        found = {
            kind: str(path)
            for kind, ending in _KINDS.items()
            if any(ending.search(file.name) for file in files)
        }
        if not found:
            what = "The folder" if path.is_dir() else "The file"
            has = "has no file whose name ends" if path.is_dir() else "does not end"
            raise DataFileError(
                f"{what} {path} {has} in .csv or .parquet. Say --format csv or --format parquet."
            )
        kinds |= found
    if len(kinds) > 1:
        raise DataFileError(
            f"There are Parquet files ({kinds['parquet']}) and CSV files ({kinds['csv']}). Give "
            "those of one kind, or say --format."
        )
    return next(iter(kinds))


def lines_of(path: str, what: str, holds: str) -> list[str]:
    """Returns the lines of a file of text that are not empty.

    Args:
        path: The file.
        what: What a line names, for the message where there is none.
        holds: What stands in a line, likewise.

    Raises:
        DataFileError: If it holds no text in UTF-8, or no such line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise DataFileError(f"{path} holds no text in UTF-8: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataFileError(f"{path} names no {what}; it holds {holds} a line.")
    return found
