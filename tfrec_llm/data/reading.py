"""Parquet and CSV files, single, several or in folders, as one Arrow table."""

import contextlib
import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tfrec_llm.data.columns import check_columns, id_column, ids_from_text, plain
from tfrec_llm.errors import DataFileError, MissingColumnError, MixedTypeError

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_PARQUET = re.compile(r"\.(parquet|parq|pq)$", re.IGNORECASE)
_CSV = re.compile(r"\.(csv|tsv|txt)(\.(gz|bz2|zst|lz4|br))?$", re.IGNORECASE)
# "NA" is none of them: it is Namibia, and a shop's item may be called so.
_NULLS = ["", "NaN", "nan", "NULL", "null"]
_FAILED_COLUMN = re.compile(r"In CSV column #(\d+)")
_DELIMITERS = {";": ";", "\t": r"\t", ",": ",", "|": "|"}


def read_parquet(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    id_names: Sequence[str] = (),
    ids: str | None = None,
) -> pa.Table:
    """Reads Parquet files into one table.

    Args:
        path: A file, several, or a folder, of which all `.parquet` files are read with those of
            its subfolders, in the order of their names. A part of the path below the folder
            such as `day=2024-05-01` counts as a column of text.
        columns: The columns to read, or None for all.
        id_names: Those of them that hold ids; they come as int64 or strings.
        ids: `"string"` turns them into strings.

    Returns:
        The rows of all files. Number types that differ among the files are widened.

    Raises:
        DataFileError: If there is no file, one is truncated or damaged, or they differ in their
            columns.
        MissingColumnError: If a file lacks one of `columns`.
        MixedTypeError: If a column is of types in two files that do not go together.
    """
    tables = []
    for file, parts in _find(path, _PARQUET, "Parquet"):
        with opened_parquet(file) as parquet:
            present = parquet.schema_arrow.names
            extra = {name: value for name, value in parts.items() if name not in present}
            wanted = [*present, *extra] if columns is None else list(columns)
            check_columns([*present, *extra], wanted, f"file {file}")
            table = parquet.read(columns=[name for name in wanted if name not in extra])
        for name in wanted:
            if name in extra:
                table = table.append_column(name, pa.repeat(extra[name], len(table)))
            elif name in id_names:
                place = table.column_names.index(name)
                table = table.set_column(place, name, id_column(table[name], name, ids))
        tables.append((file, table.select(wanted)))
    return _joined(tables)


def parquet_batches(
    path: Paths, *, columns: Sequence[str], rows: int = 1_000_000
) -> Iterator[pa.Table]:
    """Reads Parquet files a part at a time.

    Args:
        path: As in `read_parquet`.
        columns: The columns to read.
        rows: Most rows of a part.

    Yields:
        Tables, in the order of the files' names and of their rows.

    Raises:
        DataFileError: If there is no file, or one is truncated or damaged.
        MissingColumnError: If a file lacks one of `columns`.
    """
    for file, parts in _find(path, _PARQUET, "Parquet"):
        with opened_parquet(file) as parquet:
            present = parquet.schema_arrow.names
            extra = {name: value for name, value in parts.items() if name not in present}
            check_columns([*present, *extra], columns, f"file {file}")
            stored = [name for name in columns if name not in extra]
            for batch in parquet.iter_batches(rows, columns=stored):
                table = pa.Table.from_batches([batch])
                for name in columns:
                    if name in extra:
                        table = table.append_column(name, pa.repeat(extra[name], len(table)))
                yield table.select(list(columns))


def read_csv(
    path: Paths,
    *,
    columns: Sequence[str] | None = None,
    id_names: Sequence[str] = (),
    ids: str | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> pa.Table:
    """Reads CSV files with a header line into one table.

    Types are inferred. Ids are integers only if every one, of all files, is written as one
    would write an integer: one `007` or `C12` among them makes all of them text. Another column
    whose later values do not fit its first ones becomes text. Empty fields and unquoted NaN,
    nan, NULL and null are missing values; NA is text.

    Args:
        path: A file, several, or a folder, of which all `.csv`, `.tsv` and `.txt` files are
            read, compressed ones (`.csv.gz`) too.
        columns: The columns to read, or None for all.
        id_names: Those of them that hold ids.
        ids: `"string"` leaves them text.
        delimiter: What separates the fields.
        encoding: How the text is encoded.

    Returns:
        The rows of all files, in the order of the files' names.

    Raises:
        DataFileError: If there is no file, one is no CSV in this encoding, or they differ in
            their columns.
        MissingColumnError: If a file lacks one of `columns`; names a better delimiter where
            one shows.
        MixedTypeError: If a column is of types in two files that do not go together.
    """
    tables = []
    for file, _ in _find(path, _CSV, "CSV"):
        present = _header(file, delimiter, encoding)
        wanted = list(columns) if columns is not None else present
        try:
            check_columns(present, wanted, f"file {file}")
        except MissingColumnError as error:
            raise MissingColumnError(f"{error}{_better_delimiter(present, delimiter)}") from None
        tables.append((file, _read_one_csv(file, present, wanted, id_names, delimiter, encoding)))
    table = _joined(tables)
    if ids is None:
        for name in set(id_names) & set(table.column_names):
            place = table.column_names.index(name)
            table = table.set_column(place, name, ids_from_text(table[name]))
    return table


@contextlib.contextmanager
def opened_parquet(path: str | os.PathLike[str]) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; what fails on it inside the block becomes a DataFileError."""
    if not Path(path).exists():
        raise DataFileError(f"There is no file {path}.")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataFileError(
            f"{path} cannot be read as Parquet; it is truncated, damaged or of another format: "
            f"{error}"
        ) from error


def _find(path: Paths, suffix: re.Pattern[str], kind: str) -> list[tuple[Path, dict[str, str]]]:
    """Lists the files, each with the columns that its folders' names give (`day=...`)."""
    if isinstance(path, str | os.PathLike):
        path = [path]
    found: list[tuple[Path, dict[str, str]]] = []
    for one in map(Path, path):
        if not one.is_dir():
            if not one.exists():
                raise DataFileError(f"There is no file or folder {one}.")
            found.append((one, {}))
            continue
        below = [file.relative_to(one) for file in sorted(one.rglob("*")) if file.is_file()]
        # Spark and others keep their own notes in files that begin with these.
        below = [name for name in below if not any(p.startswith((".", "_")) for p in name.parts)]
        named = [name for name in below if suffix.search(name.name)]
        if not named:
            shown = ", ".join(str(name) for name in below[:5]) or "no file"
            more = ", ..." if len(below) > 5 else ""
            raise DataFileError(f"The folder {one} has no {kind} file. It has {shown}{more}.")
        for name in named:
            parts = dict(part.split("=", 1) for part in name.parts[:-1] if "=" in part)
            found.append((one / name, parts))
    if not found:
        raise DataFileError("The list of files is empty.")
    return found


def _joined(tables: list[tuple[Path, pa.Table]]) -> pa.Table:
    if len(tables) == 1:
        return tables[0][1]
    first_file, first = tables[0]
    for file, table in tables[1:]:
        differing = set(first.column_names) ^ set(table.column_names)
        if differing:
            raise DataFileError(
                f"Only one of the files {first_file} and {file} has the columns "
                f"{sorted(differing)}."
            )
    try:
        return pa.concat_tables([table for _, table in tables], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        if any(pa.types.is_dictionary(kind) for _, table in tables for kind in table.schema.types):
            return _joined([(file, _decoded(table)) for file, table in tables])
        raise _clash(tables) from error


def _decoded(table: pa.Table) -> pa.Table:
    return pa.table({name: plain(table[name]) for name in table.column_names})


def _clash(tables: list[tuple[Path, pa.Table]]) -> MixedTypeError:
    first_file, first = tables[0]
    for name in first.column_names:
        for file, table in tables[1:]:
            fields = [pa.schema([t.schema.field(name)]) for t in (first, table)]
            try:
                pa.unify_schemas(fields, promote_options="permissive")
            except (pa.ArrowTypeError, pa.ArrowInvalid):
                return MixedTypeError(
                    f"Column {name!r} is {first[name].type} in {first_file} and "
                    f"{table[name].type} in {file}. Convert one of them; for ids pass "
                    'ids="string".'
                )
    return MixedTypeError(f"The files, {first_file} first, differ in their columns' types.")


def _header(file: Path, delimiter: str, encoding: str) -> list[str]:
    try:
        with pa.input_stream(file, compression="detect") as stream:
            text = stream.read(1 << 20).decode(encoding, errors="replace")
    except (OSError, pa.ArrowException) as error:
        raise DataFileError(f"{file} cannot be read: {error}") from error
    line = next(iter(text.removeprefix("\ufeff").splitlines()), "")
    if not line:
        raise DataFileError(f"{file} has no header line; a CSV file begins with column names.")
    if "\0" in line:
        raise DataFileError(f"{file} is no CSV file: it holds no text in the encoding {encoding}.")
    return next(csv.reader([line], delimiter=delimiter))


def _better_delimiter(present: list[str], delimiter: str) -> str:
    if len(present) != 1:
        return ""
    counts = {mark: present[0].count(mark) for mark in _DELIMITERS if mark != delimiter}
    mark = max(counts, key=lambda key: counts[key])
    return (
        f' Is the delimiter another? Try delimiter="{_DELIMITERS[mark]}".' if counts[mark] else ""
    )


def _read_one_csv(
    file: Path,
    present: list[str],
    wanted: list[str],
    id_names: Sequence[str],
    delimiter: str,
    encoding: str,
) -> pa.Table:
    types = {name: pa.string() for name in id_names if name in wanted}
    # Each failure makes one more column text, so it ends.
    for _ in range(len(wanted) + 1):
        try:
            return pacsv.read_csv(
                file,
                read_options=pacsv.ReadOptions(encoding=encoding, block_size=4 << 20),
                parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    include_columns=wanted,
                    column_types=types,
                    null_values=_NULLS,
                    strings_can_be_null=True,
                ),
            )
        except (pa.ArrowException, OSError, UnicodeError) as error:
            failed = _FAILED_COLUMN.search(str(error))
            name = present[int(failed[1])] if failed and int(failed[1]) < len(present) else None
            if name is not None and name not in types:
                types[name] = pa.string()
                continue
            cure = ' If it has another encoding, pass it, as encoding="latin-1".'
            wrong_encoding = isinstance(error, UnicodeError) or "UTF8" in str(error)
            raise DataFileError(
                f"{file} cannot be read as CSV with the delimiter {delimiter!r}: {error}."
                f"{cure if wrong_encoding else ''}"
            ) from error
    raise AssertionError("a column was made text twice")
