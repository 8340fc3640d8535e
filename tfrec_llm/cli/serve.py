"""`tfrec-llm serve`: an exported model behind HTTP."""

import argparse
import logging
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli import export
from tfrec_llm.cli.argument_types import positive, rate
from tfrec_llm.cli.framework import start_tensorflow
from tfrec_llm.cli.log_files import lines_of
from tfrec_llm.cli.usage_error import UsageError

if TYPE_CHECKING:
    from tfrec_llm.serving.histories import HistoryStore

SUMMARY = "serve an exported model over HTTP"
EXAMPLE = """examples:
  tfrec-llm serve serving/shop --store histories.sqlite
  tfrec-llm serve serving/shop --store redis://localhost:6379/0 --api-keys keys.txt

It follows the folder: a new version is loaded, warmed up and answers without a restart. API keys
stand in a file, one a line, or in TFREC_API_KEYS, between commas."""

_DAY = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "model", type=Path, metavar="FOLDER", help="of the model, with a folder for every version"
    )
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8501, help="(default: %(default)s)")
    parser.add_argument("--name", help="of the model in URLs (default: the folder's)")
    parser.add_argument(
        "--store",
        default=":memory:",
        metavar="FILE|URL",
        help="where histories are kept: an SQLite file or redis://... "
        "(default: in memory, until the server stops)",
    )
    parser.add_argument(
        "--max-age", type=rate, metavar="DAYS", help="forget events after so long (default: never)"
    )
    parser.add_argument(
        "--max-history",
        type=positive,
        default=500,
        metavar="N",
        help="newest events kept of a user, and longest history sent (default: %(default)s)",
    )
    parser.add_argument("--api-keys", metavar="FILE", help="who knows one of these may ask")
    parser.add_argument(
        "--rate", type=rate, metavar="N", help="requests a second of each caller (default: any)"
    )
    parser.add_argument("--max-k", type=positive, default=200, metavar="K", help="longest list")
    parser.add_argument(
        "--max-body", type=positive, default=1_000_000, metavar="BYTES", help="longest request"
    )
    parser.add_argument(
        "--max-batch",
        type=positive,
        default=64,
        metavar="N",
        help="most requests in flight that one call of the model answers (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="N",
        help="that one operation of the model may use; more help where a hundred thousand items "
        "and more are searched exactly (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=rate,
        default=0.5,
        metavar="SECONDS",
        help="after which a list is made of what is popular (default: %(default)s)",
    )
    parser.add_argument(
        "--poll", type=rate, default=5.0, metavar="SECONDS", help="how often to look for versions"
    )
    parser.add_argument(
        "--recommender", type=Path, metavar="MODEL", help="saved recommender; with --catalogue"
    )
    parser.add_argument(
        "--catalogue",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet file of the items; when it changes, a version with the new items is "
        "exported from --recommender, which must read item features",
    )
    parser.add_argument(
        "--export-options",
        type=shlex.split,
        default=[],
        metavar="TEXT",
        help="how these versions are exported: options of tfrec-llm export, in one argument, such "
        "as '--exclude A13 --index approximate'",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="write down lists and events, for tfrec-llm monitor; users' ids as keyed hashes only, "
        "by the key in TFREC_LOG_KEY, which it needs",
    )
    parser.add_argument(
        "--record-days", type=rate, metavar="DAYS", help="remove records after so long"
    )
    parser.add_argument(
        "--grace",
        type=positive,
        default=30,
        metavar="SECONDS",
        help="to finish requests when it is told to stop (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    if (arguments.catalogue is None) != (arguments.recommender is None):
        raise UsageError("--catalogue and --recommender go together.")
    _check_export_options(arguments)
    if arguments.record_days is not None and arguments.record is None:
        raise UsageError("--record-days goes with --record.")
    log_key = os.environ.get("TFREC_LOG_KEY")
    if arguments.record is not None and not log_key:
        raise UsageError(
            "--record needs a secret of yours in TFREC_LOG_KEY: under a key that is lost with the "
            "process, nobody could erase a user from the record any more."
        )
    start_tensorflow(threads=arguments.threads)
    try:
        import uvicorn

        from tfrec_llm.serving.app import create_app
        from tfrec_llm.serving.json_log import JsonLines
    except ImportError as error:
        if "tfrec-llm[" not in str(error) and error.name != "uvicorn":
            raise
        raise UsageError("The server is an extra: pip install 'tfrec-llm[serve]'.") from error
    from tfrec_llm.serving.model_versions import ModelVersions
    from tfrec_llm.serving.options import ServerOptions

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("tfrec_llm.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.setLevel(level)
        log.propagate = False
    options = ServerOptions(
        name=arguments.name,
        api_keys=_keys(arguments.api_keys),
        max_k=arguments.max_k,
        max_history=arguments.max_history,
        max_body=arguments.max_body,
        rate=arguments.rate,
        max_batch=arguments.max_batch,
        timeout=arguments.timeout,
        poll_seconds=arguments.poll,
        log_key=log_key,
    )
    store = _store(arguments)
    upkeep = []
    if arguments.catalogue is not None:
        from tfrec_llm.serving.catalogue_watch import CatalogueWatch

        watch = CatalogueWatch(
            arguments.recommender,
            arguments.catalogue,
            arguments.model,
            options=arguments.export_options,
        )
        upkeep.append(watch.check)
    versions = ModelVersions(arguments.model)
    recorder = None
    if arguments.record is not None:
        from tfrec_llm.serving.recording import Recorder
        from tfrec_llm.serving.user_key import UserKey

        key = UserKey(options.log_key)
        recorder = Recorder(arguments.record, key=key, keep_days=arguments.record_days)
    app = create_app(versions, store, options, upkeep=upkeep, recorder=recorder)
    print(f"serving {arguments.model} at http://{arguments.host}:{arguments.port}", flush=True)
    # Uvicorn's own log would hold paths, and in these stand users' ids.
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=arguments.grace,
        server_header=False,
    )
    uvicorn.Server(config).run()


def _check_export_options(arguments: argparse.Namespace) -> None:
    """Refuses now what would else fail when the catalogue changes."""
    options = arguments.export_options
    if options and arguments.catalogue is None:
        raise UsageError("--export-options goes with --catalogue.")
    parser = argparse.ArgumentParser(prog="--export-options", add_help=False)
    export.add_arguments(parser)
    try:
        parser.parse_args([str(arguments.recommender), "-o", str(arguments.model), *options])
    except SystemExit as error:
        raise UsageError("--export-options are options of tfrec-llm export.") from error


def _store(arguments: argparse.Namespace) -> "HistoryStore":
    limits: dict[str, Any] = {
        "max_events": arguments.max_history,
        "max_age": math.inf if arguments.max_age is None else arguments.max_age * _DAY,
    }
    if arguments.store.startswith(("redis://", "rediss://", "unix://")):
        from tfrec_llm.serving.redis_histories import RedisHistories

        return RedisHistories(arguments.store, **limits)
    from tfrec_llm.serving.sqlite_histories import SQLiteHistories

    return SQLiteHistories(arguments.store, **limits)


def _keys(path: str | None) -> list[str]:
    if path is not None:
        return lines_of(path, "key", "a key")
    given = os.environ.get("TFREC_API_KEYS", "").split(",")
    return [key.strip() for key in given if key.strip()]
