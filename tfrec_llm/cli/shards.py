"""`tfrec-llm shards`: a log larger than memory, to files of whole users to train on."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import positive, share
from tfrec_llm.cli.log_files import add_log_arguments, reading_options
from tfrec_llm.cli.usage_error import UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SUMMARY = "write a log larger than memory to files of whole users, to train on"
EXAMPLE = """example:
  tfrec-llm shards log/ -o shards --k-core 5 5 --validation 0.01
  tfrec-llm train shards -o shop.tfrec

On a cluster, where all machines see the folders and have this library:
  tfrec-llm shards hdfs://shop/log -o /mnt/shards --spark spark://master:7077"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_log_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="the shards"
    )
    parser.add_argument(
        "--num-shards",
        type=positive,
        default=64,
        metavar="N",
        help="files; more need less memory (default: %(default)s)",
    )
    parser.add_argument(
        "--min-count",
        type=positive,
        default=1,
        metavar="N",
        help="items that occur less often are unknown (default: %(default)s)",
    )
    parser.add_argument(
        "--k-core",
        nargs=2,
        type=positive,
        metavar=("USER", "ITEM"),
        help="keep users and items with so many behaviours",
    )
    parser.add_argument(
        "--validation",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of users kept apart, whose last behaviours judge the training (default: none)",
    )
    parser.add_argument(
        "--spark",
        nargs="?",
        const="",
        metavar="MASTER",
        help="let Apache Spark do it: local[4], spark://host:7077, yarn; without a name, what "
        "Spark's own settings say",
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from tfrec_llm.data.cleaning_steps import KCore
    from tfrec_llm.data.shards import Shards

    reading = reading_options(arguments)
    if not reading["time"]:
        raise UsageError("Shards need the column of the times: name it with --time.")
    spark = None if arguments.spark is None else _session(arguments.spark)
    shards = Shards.write(
        arguments.log,
        arguments.output,
        **{name: reading[name] for name in ("user", "item", "time", "behavior", "ids")},
        num_shards=arguments.num_shards,
        min_count=arguments.min_count,
        core=KCore(*arguments.k_core) if arguments.k_core else None,
        validation=arguments.validation,
        spark=spark,
    )
    print(f"{shards}\nWritten to {arguments.output}. Next:")
    print(f"  tfrec-llm train {arguments.output} -o model.tfrec")


def _session(master: str) -> "SparkSession":
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UsageError("Spark is an extra: pip install 'tfrec-llm[spark]'.") from error
    if master.startswith("local"):
        # Its workers else take the first Python on the path.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder: Any = SparkSession.builder.appName("tfrec-llm shards")
    return (builder.master(master) if master else builder).getOrCreate()
