"""What a command holds out of a log, and how it tells the commands after it."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.cli.argument_types import at_least_two, number_or_text
from tfrec_llm.cli.usage_error import UsageError
from tfrec_llm.errors import SavedModelError

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.data.splits import Split

HOW = ("leave-last-out", "temporal", "none")
_RECORD = "training.json"


def add_split_arguments(group: Any) -> None:
    """Adds the details of a split to a group; how to split is the command's own argument."""
    group.add_argument(
        "--min-length",
        type=at_least_two,
        metavar="N",
        help="leave-last-out: users with fewer behaviours are trained on whole (default: 3)",
    )
    for name, part in (("--valid-from", "validation"), ("--test-from", "the test")):
        group.add_argument(
            name,
            metavar="TIME",
            help=f"temporal: where {part} begins (default: the last tenths of the rows)",
        )


def add_filter_seen_argument(group: Any) -> None:
    """Adds the choice whether what users did already may be recommended."""
    group.add_argument(
        "--filter-seen",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether what a user did already is never recommended (default: yes)",
    )


def split_options(
    arguments: argparse.Namespace, how: str, recorded: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns how to split: what was given, else what a model recorded.

    Raises:
        UsageError: If an argument does not go with `how`.
    """
    given = {name: getattr(arguments, name) for name in ("min_length", "valid_from", "test_from")}
    belongs = {"leave-last-out": {"min_length"}, "temporal": {"valid_from", "test_from"}}
    for name, value in given.items():
        if value is not None and name not in belongs.get(how, ()):
            raise UsageError(f"--{name.replace('_', '-')} does not go with {how}.")
    if (given["valid_from"] is None) != (given["test_from"] is None):
        raise UsageError("--valid-from and --test-from go together: give both or neither.")
    same = dict(recorded or {}) if (recorded or {}).get("how") == how else {}
    return same | {"how": how} | {name: one for name, one in given.items() if one is not None}


def split_log(log: "BehaviorLog", options: Mapping[str, Any]) -> "Split":
    """Splits a log as `split_options` says; not for "none"."""
    from tfrec_llm.data.splits import leave_last_out, temporal_split

    if options["how"] == "leave-last-out":
        return leave_last_out(log, min_length=options.get("min_length", 3))
    if options.get("valid_from") is None:
        return temporal_split(log)
    cuts = [as_moment(log, options[name]) for name in ("valid_from", "test_from")]
    try:
        return temporal_split(log, valid_from=cuts[0], test_from=cuts[1])
    except ValueError as error:
        raise UsageError(f"--valid-from, --test-from: {error}") from error


def as_moment(log: "BehaviorLog", text: str) -> Any:
    """Returns a time in the log's kind: text for timestamps, else a number."""
    import pyarrow as pa

    if pa.types.is_timestamp(log.column("time").type):
        return text
    return number_or_text(text)


def write_record(model: Path, record: Mapping[str, Any]) -> None:
    """Writes how a model was trained beside its files."""
    from tfrec_llm.data.atomic import replace_file

    with replace_file(model / _RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1))


def read_record(model: Path) -> dict[str, Any]:
    """Returns what `write_record` wrote; empty for a model that `Recommender.save` made."""
    if not model.exists():
        raise SavedModelError(f"There is no saved recommender at {model}.")
    try:
        return json.loads((model / _RECORD).read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, NotADirectoryError) as error:
        raise SavedModelError(f"{model / _RECORD} cannot be read: {error}") from error
