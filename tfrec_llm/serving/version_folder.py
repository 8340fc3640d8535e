"""The folders of exported models: `NAME/1`, `NAME/2`, ..."""

from pathlib import Path

# TensorFlow Serving leaves this folder alone but for the warm-up requests in it.
EXTRA = "assets.extra"
DESCRIPTION = f"{EXTRA}/tfrec_llm.json"
INDEX = "index.faiss"
FORMAT = "tfrec_llm.export.1"


def versions(folder: Path) -> list[int]:
    """Returns the versions of a model, rising: the names of its folders that are numbers."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir()
    )
