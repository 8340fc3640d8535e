"""`tfrec-llm evaluate`: how well a saved recommender ranks what it was not trained on."""

import argparse
import json
from pathlib import Path
from typing import Any

from tfrec_llm.cli.argument_types import lengths
from tfrec_llm.cli.framework import recommender_class
from tfrec_llm.cli.held_out import HOW, add_split_arguments, read_record, split_log, split_options
from tfrec_llm.cli.log_files import add_log_arguments, read_log, reading_options
from tfrec_llm.cli.usage_error import UsageError

SUMMARY = "evaluate a saved recommender on what was held out of its training"
EXAMPLE = """example:
  tfrec-llm evaluate shop.tfrec log.parquet --floors

Give the log that it was trained on; the test part is held out of it in the same way. Or
give what happened later, with --split none: then every row is one to be predicted, from
what the model knows of the users."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the saved recommender")
    add_log_arguments(parser, recorded=True)
    held_out = parser.add_argument_group("what is held out")
    held_out.add_argument("--split", choices=HOW, help="default: as the model was trained")
    add_split_arguments(held_out)
    held_out.add_argument(
        "--filter-seen",
        action=argparse.BooleanOptionalAction,
        help="whether what a user did already leaves the ranking (default: as trained)",
    )
    parser.add_argument(
        "-k", type=lengths, default=(5, 10), metavar="K,K", help="lengths of list (default: 5,10)"
    )
    parser.add_argument(
        "--floors",
        action="store_true",
        help="beside popularity, Markov chain and sequential rules, fitted on the training part",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the numbers to a file, or print them with -"
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    record = read_record(arguments.model)
    how = arguments.split or record.get("split", {}).get("how")
    load = recommender_class().load
    recommender = load(arguments.model)
    if how is None:
        raise UsageError(
            f"{arguments.model} does not say how its test part was held out: pass --split."
        )
    if how == "none" and not arguments.split:
        raise UsageError(
            f"{arguments.model} was trained on its whole log. Pass --split none with what "
            "happened later, or train again with --validation."
        )
    if how == "none" and arguments.floors:
        raise UsageError("--floors need a training part, which --split none does not give.")
    splitting = split_options(arguments, how, record.get("split"))
    log = read_log(arguments.log, reading_options(arguments, record.get("reading")))
    filter_seen = arguments.filter_seen
    if filter_seen is None:
        filter_seen = record.get("filter_seen", True)
    options: dict[str, Any] = {"k": arguments.k, "filter_seen": filter_seen}
    if how == "none":
        result: Any = recommender.evaluate(log, **options)
    else:
        split = split_log(log, splitting)
        if arguments.floors:
            result = recommender.compare(split.test, train=split.train, **options)
        else:
            result = recommender.evaluate(split.test, **options)
    numbers = json.dumps(result.to_dict(), indent=2)
    if arguments.json == "-":
        print(numbers)
        return
    print(result)
    if arguments.json is not None:
        from tfrec_llm.data.atomic import replace_file

        with replace_file(arguments.json) as temporary:
            temporary.write_text(f"{numbers}\n")
