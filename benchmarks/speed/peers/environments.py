"""Own Python environments for the libraries measured beside this one."""

import json
import subprocess
import sys
import venv
from pathlib import Path

# PyTorch comes first, so that the peer takes the build that is there. Elsewhere than where the
# package index gives a CPU build, set PIP_EXTRA_INDEX_URL to PyTorch's own index of CPU builds.
PYTORCH = "torch==2.13.0"
PEERS = {"rectools": "rectools[torch]==0.19.*", "replay": "replay-rec[torch]==0.22.*"}
READER = "pyarrow<24"  # of the data; newer ones do not take the NumPy that RecTools asks for
_VERSIONS = (
    "import importlib.metadata as m, json, sys; "
    "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
)
_TOLD = ("torch", "rectools", "replay-rec", "lightning", "pytorch-lightning", "numpy")


def environment(peer: str, folder: Path) -> Path:
    """Returns the Python of a peer's environment, which is made if it is not there.

    Args:
        peer: `"rectools"` or `"replay"`.
        folder: Holds an environment a peer.

    Raises:
        RuntimeError: If the peer cannot be installed; says what pip said.
    """
    place = folder.expanduser() / peer
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if python.exists() and peer_version(peer, python):
        return python
    print(f"Making an environment for {peer} in {place}: this takes minutes and about 1.5 GB.")
    venv.create(place, with_pip=True)
    for package in (PYTORCH, PEERS[peer], READER):
        command = [python, "-m", "pip", "install", "--quiet", package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{package} cannot be installed in {place}:\n{done.stderr[-2000:]}")
    return python


def versions(python: Path) -> dict[str, str]:
    """Returns the versions of what matters in an environment."""
    found = json.loads(subprocess.check_output([python, "-c", _VERSIONS], text=True))
    return {name: found[name] for name in _TOLD if name in found}


def peer_version(peer: str, python: Path) -> str | None:
    """Returns the peer's version, None where it is not installed whole."""
    name = PEERS[peer].partition("[")[0]
    return versions(python).get(name)
