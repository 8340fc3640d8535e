"""Folders in which what ranks a catalogue is saved, whole or not at all."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tfrec_llm
from tfrec_llm.data.feature_table import Catalogue
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import SavedModelError

if TYPE_CHECKING:
    from tfrec_llm.evaluation.scorer import Scorer

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class KnownParts:
    """What a scorer knows: its items, what users did, and what is known of the items."""

    vocabulary: Vocabulary
    histories: UserSequences | None
    catalogue: Catalogue | None


def save_parts(scorer: "Scorer", folder: Path) -> None:
    """Writes what a scorer knows into a folder."""
    scorer.vocabulary.save(folder / "vocabulary.parquet")
    if scorer.histories is not None:
        scorer.histories.save(folder / "histories")
    if scorer.catalogue is not None:
        scorer.catalogue.save(folder / "catalogue.parquet")


def load_parts(folder: Path, *, histories: bool = True, catalogue: bool) -> KnownParts:
    """Reads what `save_parts` wrote.

    Args:
        folder: The folder.
        histories: Whether histories were saved.
        catalogue: Whether a catalogue was.
    """
    return KnownParts(
        Vocabulary.load(folder / "vocabulary.parquet"),
        UserSequences.load(folder / "histories") if histories else None,
        Catalogue.load(folder / "catalogue.parquet") if catalogue else None,
    )


def write_manifest(folder: Path, format: str, **contents: Any) -> None:
    """Writes what a folder holds and by which versions, with the sizes of its files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest = {
        "format": format,
        "tfrec_llm": tfrec_llm.__version__,
        "keras": version("keras"),
        **contents,
        "files": {str(file.relative_to(folder)): file.stat().st_size for file in files},
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def check_target(path: Path) -> None:
    """Refuses a path that cannot become a saved recommender without a loss of other files.

    Raises:
        SavedModelError: If it is a file, or a folder with something else in it.
    """
    if path.is_file():
        raise SavedModelError(f"{path} is a file; a recommender is saved as a folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / _MANIFEST).exists():
        raise SavedModelError(
            f"{path} is a folder with other files in it, which saving would replace. Give a new "
            "folder."
        )


def read_manifest(path: Path, format: str) -> dict[str, Any]:
    """Reads what `write_manifest` wrote, and checks that the files are there whole.

    Raises:
        SavedModelError: If a file is missing or damaged, or the format is another.
    """
    if not path.exists():
        raise SavedModelError(f"There is no saved recommender at {path}.")
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
    except FileNotFoundError as error:
        raise SavedModelError(f"{path} is no saved recommender: it has no {_MANIFEST}.") from error
    except (OSError, ValueError) as error:
        raise SavedModelError(f"{path / _MANIFEST} cannot be read: {error}") from error
    if manifest.get("format") != format:
        raise SavedModelError(f"{path} has the format {manifest.get('format')!r}, not {format!r}.")
    for name, size in manifest["files"].items():
        file = path / name
        if not file.exists():
            raise SavedModelError(f"{path} is not whole: {name} is missing. Save it again.")
        if file.stat().st_size != size:
            raise SavedModelError(
                f"{path} is damaged: {name} has {file.stat().st_size} bytes instead of {size}. "
                "Save it again."
            )
    return manifest
