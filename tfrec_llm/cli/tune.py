"""`tfrec-llm tune`: a search for the setting that suits a log."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import positive, whole
from tfrec_llm.cli.framework import progress, recommender_class
from tfrec_llm.cli.held_out import (
    add_filter_seen_argument,
    add_split_arguments,
    split_log,
    split_options,
    write_record,
)
from tfrec_llm.cli.log_files import add_log_arguments, read_log, reading_options
from tfrec_llm.cli.usage_error import UsageError

if TYPE_CHECKING:
    from tfrec_llm.tuning.trials import Trials

SUMMARY = "search for the setting that suits a log, and save the best recommender"
EXAMPLE = """example:
  tfrec-llm tune log.parquet -o shop.tfrec --folder tuning --trials 20

Interrupt it with Ctrl-C; the same command goes on where it was. The first trial is the defaults.
Several processes share the trials through KerasTuner's variables, see the page on tuning."""

_SEARCHES = ("bayesian", "random", "hyperband")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_log_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="the best recommender"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("tuning"),
        metavar="FOLDER",
        help="for the trials, their table and picture (default: %(default)s)",
    )
    held_out = parser.add_argument_group("what is held out")
    held_out.add_argument(
        "--validation",
        choices=["leave-last-out", "temporal"],
        default="leave-last-out",
        help="users' last behaviours or the log's last days judge the trials "
        "(default: %(default)s)",
    )
    add_split_arguments(held_out)
    add_filter_seen_argument(held_out)
    search = parser.add_argument_group("the search")
    search.add_argument("--objective", choices=["next", "masked"], default="next")
    search.add_argument(
        "--method", choices=_SEARCHES, default="bayesian", help="(default: %(default)s)"
    )
    search.add_argument(
        "--metric", default="ndcg@10", help="what trials are judged by (default: %(default)s)"
    )
    for name, kind, default, words in (
        ("--trials", positive, 20, "of a random or Bayesian search"),
        ("--epochs", positive, 50, "of a trial, at most"),
        ("--patience", positive, 5, "epochs without a better validation, then a trial stops"),
        ("--max-length", positive, 50, "newest behaviours of a user that are read"),
        ("--seed", whole, 0, "of the search and of every trial"),
    ):
        search.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{words} (default: {default})"
        )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    reading = reading_options(arguments)
    splitting = split_options(arguments, arguments.validation)
    log = read_log(arguments.log, reading, catalogue=None)
    print(log)
    split = split_log(log, splitting)
    recommender_class()
    # Before the hours of the search, not after them.
    from tfrec_llm.data.saved_folder import check_target

    check_target(arguments.output)
    tuner = _tuner(arguments)
    arguments.checkpoint = Path(tuner.project_dir)  # what a search that is interrupted goes on from
    try:
        tuner.search(
            split.train,
            validation=split.valid,
            patience=arguments.patience,
            filter_seen=arguments.filter_seen,
            verbose=progress(),
        )
    except RuntimeError as error:  # KerasTuner's, after three trials in a row
        why = [text.strip().splitlines()[-1] for text in tuner.results.failures.values()]
        raise UsageError(why[-1] if why else str(error)) from error
    trials = tuner.results
    recommender = trials.best_recommender()
    # To recommend, all that users did counts, held out or not.
    recommender.histories = recommender.sequences(log)
    recommender.save(arguments.output)
    write_record(
        arguments.output,
        {"reading": reading, "split": splitting, "filter_seen": arguments.filter_seen},
    )
    _tell(arguments, trials)


def _tuner(arguments: argparse.Namespace) -> Any:
    try:
        from tfrec_llm import tuning

        spaces = {"next": tuning.next_space, "masked": tuning.masked_space}
        make = tuning.RecommenderTuner
    except ImportError as error:
        raise UsageError(str(error)) from error
    return make(
        spaces[arguments.objective],
        method=arguments.method,
        metric=arguments.metric,
        max_trials=arguments.trials,
        epochs=arguments.epochs,
        fixed={"max_length": arguments.max_length, "seed": arguments.seed},
        directory=arguments.folder,
        seed=arguments.seed,
    )


def _tell(arguments: argparse.Namespace, trials: "Trials") -> None:
    from tfrec_llm.data.atomic import replace_file

    table = trials.table
    with replace_file(arguments.folder / "trials.csv") as temporary:
        table.to_csv(temporary, index=False)
    with replace_file(arguments.folder / "trials.png") as temporary:
        trials.plot().savefig(temporary, dpi=150, format="png")
    shown = table.drop(columns=[name for name in table.columns if str(name).startswith("tuner/")])
    print("\n" + shown.head(10).to_string(index=False, float_format="{:.4g}".format))
    failed = len(trials.failures)
    if failed:
        first = next(itertools.islice(trials.failures.items(), 1))
        print(f"{failed} trials failed; trial {first[0]}: {first[1].strip().splitlines()[-1]}")
    print(
        f"\nTrial {trials.best_trial} is best, {arguments.metric} "
        f"{table['score'].iloc[0]:.4f} on validation."
    )
    print(f"Written to {arguments.folder}: trials.csv, trials.png. Saved to {arguments.output}.")
    print(f"Next:\n  tfrec-llm evaluate {arguments.output} {' '.join(arguments.log)}")
