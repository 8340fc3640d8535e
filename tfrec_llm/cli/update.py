"""`tfrec-llm update`: a saved recommender learns what is new, and is published if no worse."""

import argparse
from pathlib import Path
from typing import Any

from tfrec_llm.cli.argument_types import positive, rate, share
from tfrec_llm.cli.exit_codes import NOTICED
from tfrec_llm.cli.export_options import add_export_arguments, export_options
from tfrec_llm.cli.framework import recommender_class
from tfrec_llm.cli.held_out import read_record, write_record
from tfrec_llm.cli.log_files import add_log_arguments, read_catalogue, read_log, reading_options
from tfrec_llm.cli.usage_error import UsageError

SUMMARY = "teach a saved recommender what is new, and publish it if it is no worse"
EXAMPLE = """example:
  tfrec-llm update shop.tfrec week.parquet -o serving/shop

Give what happened since the last training, or the whole log: what is known already is passed
over. An accepted recommender replaces the saved one, from which the next update goes on. The
exit code is 3 where it was refused; then nothing has changed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the saved recommender")
    add_log_arguments(parser, recorded=True)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of the served model, in which the next version is written",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help="where the accepted recommender is saved (default: in place of MODEL)",
    )
    parser.add_argument(
        "--catalogue", metavar="FILE", help="CSV or Parquet, what is known of the items by now"
    )
    parser.add_argument(
        "--catalogue-key", metavar="COLUMN", help="its column of the item ids (default: item)"
    )
    learning = parser.add_argument_group("what is learned")
    learning.add_argument("--epochs", type=positive, default=3, help="(default: %(default)s)")
    learning.add_argument(
        "--learning-rate", type=rate, metavar="N", help="(default: as the model was trained)"
    )
    learning.add_argument(
        "--replay",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="other users that are learned from, too, by the number of those with new "
        "behaviours (default: %(default)s)",
    )
    learning.add_argument("--seed", type=int, default=0)
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument(
        "--hold-out",
        type=share,
        default=0.2,
        metavar="SHARE",
        help="newest of the new behaviours that both are judged by (default: %(default)s)",
    )
    judged.add_argument("--metric", default="ndcg@10", help="(default: %(default)s)")
    judged.add_argument(
        "--tolerance",
        type=share,
        default=0.02,
        metavar="SHARE",
        help="of the metric, by which it may be behind at most, by the interval's lower end; 0 "
        "asks for a lead (default: %(default)s)",
    )
    exported = parser.add_argument_group("the version")
    add_export_arguments(exported)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    if arguments.catalogue_key and not arguments.catalogue:
        raise UsageError("--catalogue-key goes with --catalogue.")
    record = read_record(arguments.model)
    champion: Any = recommender_class().load(arguments.model)
    reading = reading_options(arguments, record.get("reading"))
    catalogue = champion.catalogue
    if arguments.catalogue is not None:
        key = arguments.catalogue_key or "item"
        catalogue = read_catalogue(arguments.catalogue, reading, key=key, ids=reading["ids"])
    log = read_log(arguments.log, reading, catalogue=catalogue)
    from tfrec_llm.data.saved_folder import check_target
    from tfrec_llm.updating.challenge import update

    target = arguments.save or arguments.model
    check_target(target)
    found = update(
        champion,
        log,
        since=record.get("trained_until"),
        hold_out=arguments.hold_out,
        replay=arguments.replay,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        metric=arguments.metric,
        tolerance=arguments.tolerance,
        filter_seen=record.get("filter_seen", True),
        export_to=arguments.output,
        export_options=export_options(arguments, champion),
        seed=arguments.seed,
    )
    print(found)
    if not found.accepted:
        return NOTICED
    found.recommender.save(target)
    write_record(target, {**record, "trained_until": found.trained_until})
    print(f"{found.new_items:,} new items; saved to {target}")
    return 0
