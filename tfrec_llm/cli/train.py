"""`tfrec-llm train`: a log in, a saved recommender out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import positive, rate, share, whole
from tfrec_llm.cli.framework import progress, recommender_class
from tfrec_llm.cli.held_out import (
    HOW,
    add_filter_seen_argument,
    add_split_arguments,
    split_log,
    split_options,
    write_record,
)
from tfrec_llm.cli.log_files import add_log_arguments, read_catalogue, read_log, reading_options
from tfrec_llm.cli.usage_error import UsageError

if TYPE_CHECKING:
    from tfrec_llm.data.shards import Shards

SUMMARY = "train a recommender on a log and save it"
EXAMPLE = """example:
  tfrec-llm train log.parquet -o shop.tfrec --epochs 30 --checkpoint training.npz

Interrupt it with Ctrl-C; with --checkpoint the same command goes on where it was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_log_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="the saved recommender"
    )
    items = parser.add_argument_group("what is known of the items, to show recommendations by")
    items.add_argument("--catalogue", metavar="FILE", help="CSV or Parquet, an item a row")
    items.add_argument(
        "--catalogue-key", metavar="COLUMN", help="its column of the item ids (default: item)"
    )
    held_out = parser.add_argument_group("what is held out")
    held_out.add_argument(
        "--validation",
        choices=HOW,
        default="leave-last-out",
        help="hold out users' last behaviours, the log's last days, or nothing "
        "(default: %(default)s)",
    )
    add_split_arguments(held_out)
    add_filter_seen_argument(held_out)
    model = parser.add_argument_group("the model")
    model.add_argument("--objective", choices=["next", "masked"], default="next")
    for name, kind, default, words in (
        ("--emb-dim", positive, 64, "width of vectors"),
        ("--num-layers", positive, 2, "Transformer blocks"),
        ("--num-heads", positive, 2, "attention heads"),
        ("--max-length", positive, 200, "newest behaviours of a user that are read"),
        ("--dropout", share, 0.2, "share of values dropped in training"),
        ("--min-count", positive, 1, "items that occur less often are unknown"),
    ):
        model.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{words} (default: {default})"
        )
    model.add_argument(
        "--loss",
        choices=["catalog", "sampled"],
        default="catalog",
        help="against all items, or, for very many, a sample of them (default: %(default)s)",
    )
    training = parser.add_argument_group("training")
    for name, kind, default, words in (
        ("--epochs", positive, 50, "at most"),
        ("--patience", positive, 10, "epochs without a better validation, then it stops"),
        ("--learning-rate", rate, 1e-3, "of Adam"),
        ("--seed", whole, 0, "the same one gives the same model"),
    ):
        training.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{words} (default: {default})"
        )
    training.add_argument(
        "--batch-size", type=positive, metavar="N", help="rows a step (default: 4,096 behaviours)"
    )
    training.add_argument(
        "--track",
        choices=["tensorboard", "mlflow", "wandb"],
        help="a tool that records every epoch",
    )
    training.add_argument(
        "--checkpoint", metavar="FILE", help="kept after every epoch, to go on after a stop"
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    reading = reading_options(arguments)
    splitting = split_options(arguments, arguments.validation)
    if arguments.catalogue_key and not arguments.catalogue:
        raise UsageError("--catalogue-key goes with --catalogue.")
    catalogue = None
    if arguments.catalogue:
        key = arguments.catalogue_key or "item"
        catalogue = read_catalogue(arguments.catalogue, reading, key=key, ids=reading["ids"])
    log = _shards(arguments) or read_log(arguments.log, reading, catalogue=catalogue)
    print(log)
    recommender = _recommender(arguments)
    # Before the hours of training, not after them.
    from tfrec_llm.data.saved_folder import check_target
    from tfrec_llm.data.shards import Shards

    check_target(arguments.output)
    training: dict[str, Any] = {"epochs": arguments.epochs, "patience": arguments.patience}
    training |= {"filter_seen": arguments.filter_seen, "checkpoint": arguments.checkpoint}
    training |= {"verbose": progress(), "tracking": arguments.track}
    if arguments.checkpoint and Path(arguments.checkpoint).exists():
        print(f"Going on from the checkpoint {arguments.checkpoint}.")
    if arguments.validation == "none":
        recommender.fit(log, **training)
    elif isinstance(log, Shards):
        recommender.fit(log, validation=log.validation, **training)
    else:
        split = split_log(log, splitting)
        recommender.fit(split.train, validation=split.valid, **training)
        # To recommend, all that users did counts, held out or not.
        recommender.histories = recommender.sequences(log)
    recommender.save(arguments.output)
    write_record(
        arguments.output,
        {"reading": reading, "split": splitting, "filter_seen": arguments.filter_seen},
    )
    _tell(arguments, recommender)


def _shards(arguments: argparse.Namespace) -> "Shards | None":
    """Returns the shards that were named in place of a log, None where it is a log."""
    from tfrec_llm.data.shards import Shards

    if not Shards.are_in(arguments.log[0]):
        return None
    if len(arguments.log) > 1 or arguments.catalogue:
        raise UsageError("Shards are named alone, without further logs and without --catalogue.")
    shards = Shards.open(arguments.log[0])
    if arguments.validation != "none" and not shards.keep_users_apart:
        raise UsageError(
            "The shards keep no users apart to judge by: write them with --validation 0.01, or "
            "train with --validation none."
        )
    return shards


def _recommender(arguments: argparse.Namespace) -> Any:
    names = ("emb_dim", "num_layers", "num_heads", "max_length", "dropout", "min_count", "loss")
    options = {name: getattr(arguments, name) for name in (*names, "learning_rate", "seed")}
    make = recommender_class()
    try:
        return make(arguments.objective, batch_size=arguments.batch_size, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _tell(arguments: argparse.Namespace, recommender: Any) -> None:
    curve = recommender.curve
    seconds = sum(epoch["seconds"] for epoch in curve)
    line = f"\n{len(curve)} epochs in {seconds:,.0f} s"
    scores = [epoch["val_ndcg@10"] for epoch in curve if "val_ndcg@10" in epoch]
    if scores:
        line += f"; validation NDCG@10 {max(scores):.4f}, whose weights were kept"
    print(f"{line}.\nSaved to {arguments.output}. Next:")
    if recommender.histories and arguments.validation != "none":
        print(f"  tfrec-llm evaluate {arguments.output} {' '.join(arguments.log)}")
    print(f"  tfrec-llm recommend {arguments.output} -k 10 -o recommendations.csv")
