"""The program `tfrec-llm`: its commands, its exit codes, and what it says when something fails."""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfrec_llm
from tfrec_llm import errors
from tfrec_llm.cli import (
    clean,
    demo,
    evaluate,
    export,
    monitor,
    recommend,
    serve,
    shards,
    train,
    tune,
    update,
)
from tfrec_llm.cli.exit_codes import FAILED, INTERRUPTED, MISUSED
from tfrec_llm.cli.usage_error import UsageError

PROGRAM = "tfrec-llm"

# What the messages of the library call by the names of Python, in the words of the command line.
_HINTS = {
    errors.MissingColumnError: "Name your columns with --user, --item, --time and --behavior",
    errors.MixedTypeError: "On the command line: --ids string",
    errors.NullValueError: f"On the command line: {PROGRAM} clean LOG --drop-nulls -o FILE",
    errors.UnknownItemError: "On the command line: --on-unknown ignore",
    errors.UnknownUserError: "On the command line: --on-unknown ignore",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 for what failed, 2 for a wrong use, 3 for an alarm or an update that
        was refused, 130 after Ctrl-C.

    Example:
        >>> main(["recommend", "nowhere"])
        1
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as end:  # argparse ends so, after --help or a wrong use
        return int(end.code or 0)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = arguments.run(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt:
        _say(f"interrupted. {_how_to_resume(arguments)}")
        return INTERRUPTED
    except UsageError as error:
        _say(f"error: {error}")
        return MISUSED
    except BrokenPipeError:
        # Who read the output, such as `head`, has enough; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (errors.TfrecError, OSError, ValueError) as error:
        if arguments.debug:
            traceback.print_exc()
        _say(f"error: {_one_line(error)}")
        return FAILED
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Learn from a shop's behaviour log, and recommend.",
        epilog=f"Start with: {PROGRAM} demo. Each command has its own --help.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {tfrec_llm.__version__}")
    parser.set_defaults(debug=False)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--debug", action="store_true", help="show where in the program an error came from"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        *(demo, clean, shards, train, tune, evaluate, recommend),
        *(export, serve, monitor, update),
    ):
        name = command.__name__.rpartition(".")[2]
        summary = command.SUMMARY
        one = commands.add_parser(
            name,
            parents=[shared],
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=command.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(one)
        one.set_defaults(run=command.run)
    return parser


def _say(message: str) -> None:
    print(f"{PROGRAM}: {message}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """Returns the message; what it has below its first line is printed here, above it."""
    # LookupErrors would show as the repr of their message.
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    first, _, below = (text or type(error).__name__).partition("\n")
    if below:
        print(below, file=sys.stderr)
    hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
    return " ".join([first, *(f"({hint}.)" for hint in hints)])


def _how_to_resume(arguments: Any) -> str:
    if not hasattr(arguments, "checkpoint"):
        return ""
    if arguments.checkpoint is None:
        return "Nothing was saved: pass --checkpoint FILE to be able to go on the next time."
    if not Path(arguments.checkpoint).exists():
        return "Nothing was saved: no epoch was complete yet."
    return (
        "The same command goes on after the last complete epoch, which is kept in "
        f"{arguments.checkpoint}."
    )


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    _say(f"warning: {message}")
