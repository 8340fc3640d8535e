"""`tfrec-llm clean`: a log without what people did not do."""

import argparse
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import names, number_or_text, positive, table_file
from tfrec_llm.cli.held_out import as_moment
from tfrec_llm.cli.log_files import add_log_arguments, read_whole_log, reading_options, write_table
from tfrec_llm.cli.usage_error import UsageError

if TYPE_CHECKING:
    import numpy as np

    from tfrec_llm.data.behavior_log import BehaviorLog

SUMMARY = "clean a log step by step, and report what each step removed"
EXAMPLE = """example:
  tfrec-llm clean raw/ -o log.parquet --user customer --item sku --drop-nulls \\
    --drop-duplicates --drop-repeats 30min --max-behaviors 1000 --per 1h --k-core 5 5

The steps are taken in the order in which they are listed here. The columns of the
result are called user, item, time and behavior; all others stay under their names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_log_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=table_file, required=True, metavar="FILE", help=".parquet or .csv"
    )
    steps = parser.add_argument_group("steps")
    steps.add_argument(
        "--drop-nulls", action="store_true", help="drop rows that lack a user, an item or a time"
    )
    steps.add_argument(
        "--only-behaviors", type=names, metavar="A,B", help="keep these kinds of behaviour"
    )
    steps.add_argument("--start", metavar="TIME", help="keep what happened from then on")
    steps.add_argument("--end", metavar="TIME", help="keep what happened before then")
    steps.add_argument(
        "--drop-duplicates", action="store_true", help="drop rows that equal another in full"
    )
    steps.add_argument(
        "--drop-repeats",
        nargs="?",
        const="",
        metavar="WINDOW",
        help="drop what a user repeats at once, or within a window such as 30min",
    )
    steps.add_argument(
        "--max-behaviors",
        type=positive,
        metavar="N",
        help="drop users who do more than this, robots",
    )
    steps.add_argument("--per", metavar="WINDOW", help="... within a window, such as 1h")
    steps.add_argument(
        "--k-core",
        nargs=2,
        type=positive,
        metavar=("USER", "ITEM"),
        help="keep users and items with so many behaviours",
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from tfrec_llm.data.cleaning import clean

    if arguments.per is not None and arguments.max_behaviors is None:
        raise UsageError("--per goes with --max-behaviors.")
    if arguments.only_behaviors and not arguments.behavior:
        raise UsageError("--only-behaviors needs --behavior, the column of the kinds.")
    if not _wants_a_step(arguments):
        raise UsageError("There is no step to take: give --drop-nulls or another; see --help.")
    log = read_whole_log(arguments.log, reading_options(arguments))
    result = clean(log, _steps(arguments, log))
    write_table(result.log.table, arguments.output)
    print(result.report)
    print(f"\nWritten to {arguments.output}")


def _wants_a_step(arguments: argparse.Namespace) -> bool:
    given = ("only_behaviors", "start", "end", "drop_repeats", "max_behaviors", "k_core")
    return (
        arguments.drop_nulls
        or arguments.drop_duplicates
        or any(getattr(arguments, name) is not None for name in given)
    )


def _steps(arguments: argparse.Namespace, log: "BehaviorLog") -> list[Any]:
    from tfrec_llm.data import cleaning_steps as steps

    wanted: list[Any] = []
    if arguments.drop_nulls:
        wanted.append(steps.DropNulls())
    if arguments.only_behaviors:
        wanted.append(_only(arguments.only_behaviors))
    if arguments.start is not None or arguments.end is not None:
        limits = [
            None if text is None else as_moment(log, text)
            for text in (arguments.start, arguments.end)
        ]
        wanted.append(steps.TimeRange(*limits))
    if arguments.drop_duplicates:
        wanted.append(steps.DropDuplicates())
    if arguments.drop_repeats is not None:
        window = number_or_text(arguments.drop_repeats) if arguments.drop_repeats else None
        wanted.append(steps.DropRepeats(window))
    if arguments.max_behaviors is not None:
        per = None if arguments.per is None else number_or_text(arguments.per)
        wanted.append(steps.DropRobots(arguments.max_behaviors, per))
    if arguments.k_core is not None:
        wanted.append(steps.KCore(*arguments.k_core))
    return wanted


def _only(kinds: list[str]) -> Any:
    def step(log: "BehaviorLog") -> "np.ndarray":
        import pyarrow as pa
        import pyarrow.compute as pc

        kept = pc.is_in(log.column("behavior"), value_set=pa.array(kinds))
        return kept.to_numpy()

    step.__name__ = f"only {', '.join(kinds)}"
    return step
