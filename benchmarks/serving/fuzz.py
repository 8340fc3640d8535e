"""Sends the server what its OpenAPI document allows and what it does not: no answer may be a 5xx.

    pip install schemathesis
    python benchmarks/serving/fuzz.py [--examples 100]

Ends with the exit code of Schemathesis: 0 if nothing was found.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from load import export, serving

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100, help="of each route")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "shop"
        export("eshop", model, 0)
        with serving(model, 64) as port:
            command = ["schemathesis", "run", f"http://127.0.0.1:{port}/openapi.json"]
            command += ["--max-examples", str(arguments.examples), "--checks", ",".join(CHECKS)]
            command += ["--phases", "coverage,fuzzing"]
            return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
