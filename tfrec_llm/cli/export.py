"""`tfrec-llm export`: a saved recommender as a version that can be served."""

import argparse
from pathlib import Path
from typing import Any

from tfrec_llm.cli.export_options import add_export_arguments, export_options
from tfrec_llm.cli.framework import recommender_class
from tfrec_llm.cli.held_out import read_record
from tfrec_llm.cli.log_files import PLAIN, read_catalogue
from tfrec_llm.cli.usage_error import UsageError

SUMMARY = "export a saved recommender for TensorFlow Serving"
EXAMPLE = """examples:
  tfrec-llm export shop.tfrec -o serving/shop            (as the next version)
  tfrec-llm export shop.tfrec -o serving/shop/7 --precision int8
  tfrec-llm export shop.tfrec -o serving/shop --catalogue items.parquet

With a catalogue, items that are new in it join by their features, where the model reads any."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the saved recommender")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder of the served model, in which the next version is written; or of a version",
    )
    add_export_arguments(parser)
    parser.add_argument(
        "--filter-seen",
        action=argparse.BooleanOptionalAction,
        help="whether to leave out what a user did already (default: as trained)",
    )
    parser.add_argument(
        "--catalogue", metavar="FILE", help="CSV or Parquet, what is known of the items by now"
    )
    parser.add_argument(
        "--catalogue-key", metavar="COLUMN", help="its column of the item ids (default: item)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    if arguments.catalogue_key and not arguments.catalogue:
        raise UsageError("--catalogue-key goes with --catalogue.")
    record = read_record(arguments.model)
    recommender: Any = recommender_class().load(arguments.model)
    if arguments.catalogue is not None:
        _take_up(recommender, arguments.catalogue, arguments.catalogue_key or "item")
    filter_seen = arguments.filter_seen
    if filter_seen is None:
        filter_seen = record.get("filter_seen", True)
    folder = recommender.export(
        arguments.output, filter_seen=filter_seen, **export_options(arguments, recommender)
    )
    print(f"exported to {folder}")


def _take_up(recommender: Any, path: str, key: str) -> None:
    """Takes up what is known of the items by now, and new items where their features tell them."""
    import pyarrow as pa

    ids = "string" if pa.types.is_string(recommender.vocabulary.ids.type) else None
    catalogue = read_catalogue(path, PLAIN, key=key, ids=ids)
    before = len(recommender.vocabulary)
    recommender.extend(catalogue.ids if recommender.item_features else [], catalogue=catalogue)
    print(f"{len(recommender.vocabulary) - before:,} new items")
