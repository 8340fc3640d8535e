"""What the benchmarks share: the clock, processes of their own, result files, pages.

A script finds it in the folder above its own.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Stopwatch:
    """Notes the seconds of each stretch of a run by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a stretch and begins the next."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self.last, 3)
        self.last = now


def in_new_process(
    script: str, *options: Any, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs a script and returns the JSON that its last line of output holds.

    Args:
        script: The script's path.
        *options: Its arguments.
        environment: Further variables of the process.
    """
    command = [sys.executable, script, *map(str, options)]
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(environment or {})
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine(*packages: str) -> dict[str, Any]:
    """Returns processor, cores that may be used, and versions of Python and of packages."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": usable,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def write(path: Path, results: Any) -> None:
    """Writes a result file whole or not at all."""
    from tfrec_llm.data.atomic import replace_file

    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")


def markdown(rows: list[list[str]]) -> str:
    """Returns a table, whose first row is the heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def number(value: float | None, *, signed: bool = False) -> str:
    """Returns four digits behind the point, without a zero before it; nothing for None."""
    if value is None:
        return ""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:+.4f}" if signed else f"{value:.4f}")


def spread(mean: float | None, deviation: float | None = None, *, signed: bool = False) -> str:
    """Returns a mean and, where there is one, its deviation."""
    return number(mean, signed=signed) + ("" if deviation is None else f" ± {number(deviation)}")


def between_marks(page: str, tables: str, name: str = "tables") -> str:
    """Returns a page with new tables between the two marks of a name."""
    begin, end = (f"<!-- {name}: {which} -->\n" for which in ("begin", "end"))
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{tables}{end}{after}"
