"""`tfrec-llm monitor`: what a server recorded, looked at."""

import argparse
import datetime
import json
from pathlib import Path

from tfrec_llm.cli.argument_types import names, rate
from tfrec_llm.cli.exit_codes import NOTICED
from tfrec_llm.cli.framework import start_tensorflow
from tfrec_llm.cli.usage_error import UsageError

SUMMARY = "look at what a server recorded: quality, drift, anomalies"
EXAMPLE = """examples:
  tfrec-llm monitor record serving/shop --html report.html
  tfrec-llm monitor record serving/shop --prometheus /var/lib/node_exporter/tfrec.prom

The record is what tfrec-llm serve --record wrote. The exit code is 3 where an alarm rings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("record", type=Path, metavar="RECORD", help="folder of the record")
    parser.add_argument(
        "model",
        type=Path,
        metavar="FOLDER",
        help="of the model, whose newest version counts; or of a version",
    )
    parser.add_argument(
        "--window",
        default="1d",
        metavar="TIME",
        help="newest stretch, which quality and drift are about (default: %(default)s)",
    )
    parser.add_argument(
        "--until", metavar="TIME", help="its end, ISO 8601 in UTC (default: the record's end)"
    )
    parser.add_argument(
        "--days",
        type=rate,
        default=28.0,
        help="of the record that are read, to know what is usual (default: 28)",
    )
    parser.add_argument(
        "--bucket",
        default="1h",
        metavar="TIME",
        help="stretches in which anomalies are looked for (default: %(default)s)",
    )
    parser.add_argument(
        "--within",
        default="30min",
        metavar="TIME",
        help="in which an event counts for a list (default: %(default)s)",
    )
    parser.add_argument(
        "--conversions",
        type=names,
        default=[],
        metavar="X,Y",
        help="kinds of behaviour that are conversions, such as buy",
    )
    limits = parser.add_argument_group("what rings the alarm")
    for name, words in (
        ("drift", "population stability index beyond chance (default: 0.2)"),
        ("fallback", "share of lists made without the model (default: 0.05)"),
        ("unknown", "share of items that the model lacks (default: 0.2)"),
        ("anomaly", "robust standard deviations (default: 6)"),
    ):
        limits.add_argument(f"--max-{name}", type=rate, metavar="N", help=words)
    written = parser.add_argument_group("what is written")
    written.add_argument("--html", type=Path, metavar="FILE", help="a page with pictures")
    written.add_argument("--prometheus", type=Path, metavar="FILE", help="for a textfile collector")
    written.add_argument("--json", type=Path, metavar="FILE", help="all numbers")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    until = _moment(arguments.until)
    start_tensorflow()
    from tfrec_llm.data.atomic import replace_file
    from tfrec_llm.monitoring.served_log import ServedLog
    from tfrec_llm.monitoring.traffic_watch import Limits, monitor
    from tfrec_llm.serving.exported_model import ExportedModel
    from tfrec_llm.serving.version_folder import newest_version

    given = {
        name: getattr(arguments, f"max_{name}")
        for name in ("drift", "fallback", "unknown", "anomaly")
        if getattr(arguments, f"max_{name}") is not None
    }
    end = until or datetime.datetime.now(datetime.UTC)
    served = ServedLog.read(arguments.record, since=end - datetime.timedelta(days=arguments.days))
    report = monitor(
        served,
        ExportedModel(newest_version(arguments.model)),
        window=arguments.window,
        until=until,
        within=arguments.within,
        bucket=arguments.bucket,
        conversions=arguments.conversions,
        limits=Limits(**given),
    )
    if arguments.html is not None:
        report.to_html(arguments.html)
    if arguments.prometheus is not None:
        report.to_prometheus(arguments.prometheus)
    if arguments.json is not None:
        with replace_file(arguments.json) as temporary:
            temporary.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    print(report)
    return NOTICED if report.alarms else 0


def _moment(text: str | None) -> datetime.datetime | None:
    if text is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--until {text} is no time such as 2026-05-01T12:00.") from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
