"""`tfrec-llm recommend`: the best items for users of a saved recommender, or for new ones."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import names, positive, table_file
from tfrec_llm.cli.framework import recommender_class
from tfrec_llm.cli.held_out import read_record
from tfrec_llm.cli.log_files import lines_of, write_table
from tfrec_llm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SUMMARY = "recommend items to users, known or new"
EXAMPLE = """examples:
  tfrec-llm recommend shop.tfrec --users 17,42 -k 5
  tfrec-llm recommend shop.tfrec --history A13,B4 --history C7
  tfrec-llm recommend shop.tfrec -o recommendations.parquet      (all known users)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the saved recommender")
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--users", type=names, metavar="A,B", help="known users (default: all)")
    whom.add_argument("--users-file", metavar="FILE", help="a known user a line")
    whom.add_argument(
        "--history",
        type=names,
        action="append",
        metavar="X,Y",
        help="what a new user did, oldest first; give it again for another user",
    )
    parser.add_argument(
        "-k", type=positive, default=10, metavar="K", help="items a user (default: %(default)s)"
    )
    parser.add_argument("--candidates", type=names, metavar="X,Y", help="recommend only of these")
    parser.add_argument("--exclude", type=names, metavar="X,Y", help="never recommend these")
    parser.add_argument(
        "--filter-seen",
        action=argparse.BooleanOptionalAction,
        help="whether to leave out what a user did already (default: as trained)",
    )
    parser.add_argument(
        "--on-unknown",
        choices=["raise", "warn", "ignore"],
        default="raise",
        help="users and items that are not known are an error or left out (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=table_file,
        metavar="FILE",
        help=".csv or .parquet; a table on the screen where not given",
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    users = arguments.users
    if arguments.users_file is not None:
        users = lines_of(arguments.users_file, "user", "a user id")
    record = read_record(arguments.model)
    recommender: Any = recommender_class().load(arguments.model)
    item_type = recommender.vocabulary.ids.type
    if users is not None:
        users = as_ids(users, recommender.histories.user_ids.type, "users")
    histories = arguments.history
    if histories is not None:
        histories = [as_ids(history, item_type, "items") for history in histories]
    filter_seen = arguments.filter_seen
    if filter_seen is None:
        filter_seen = record.get("filter_seen", True)
    found = recommender.recommend(
        users,
        histories=histories,
        k=arguments.k,
        filter_seen=filter_seen,
        candidates=as_ids(arguments.candidates, item_type, "items"),
        exclude=as_ids(arguments.exclude, item_type, "items"),
        on_unknown=arguments.on_unknown,
    )
    if histories is not None:
        found["user"] += 1  # as people count
    if recommender.catalogue is not None:
        found["description"] = recommender.catalogue.describe(found["item"].to_list())
    if arguments.output is None:
        print(_as_text(found))
        return
    import pyarrow as pa

    write_table(pa.Table.from_pandas(found, preserve_index=False), arguments.output)
    print(f"{len(found):,} recommendations written to {arguments.output}")


def as_ids(texts: list[str] | None, kind: "pa.DataType", what: str) -> Any:
    """Returns ids in the type that the model knows them by."""
    import pyarrow as pa

    if texts is None or not pa.types.is_integer(kind):
        return texts
    try:
        return [int(text) for text in texts]
    except ValueError:
        wrong = next(text for text in texts if not text.lstrip("+-").isdecimal())
        raise DataError(f"{wrong!r} is unknown: the {what} of this model are numbers.") from None


def _as_text(found: "pd.DataFrame") -> str:
    from tfrec_llm.evaluation.text_table import text_table

    shown = found.assign(score=found["score"].map("{:.4f}".format)).astype(str)
    return text_table([list(shown.columns), *shown.to_numpy().tolist()], align_left=True)
