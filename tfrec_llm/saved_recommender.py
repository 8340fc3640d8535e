"""The folder a recommender is saved in."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

import tfrec_llm
from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.feature_table import Catalogue
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import SavedModelError, TfrecError

if TYPE_CHECKING:
    from tfrec_llm.recommender import Recommender

_FORMAT = "tfrec_llm.recommender.1"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class SavedRecommender:
    """What a saved folder holds."""

    config: dict[str, Any]
    model: Any
    vocabulary: Vocabulary
    histories: UserSequences
    catalogue: Catalogue | None
    curve: list[dict[str, float]]


def write_recommender(recommender: "Recommender", path: Path) -> None:
    """Writes a fitted recommender; see `Recommender.save`."""
    check_target(path)
    try:
        with replace_folder(path) as folder:
            recommender.vocabulary.save(folder / "vocabulary.parquet")
            recommender.histories.save(folder / "histories")
            if recommender.catalogue is not None:
                recommender.catalogue.save(folder / "catalogue.parquet")
            recommender.model.save(folder / "model.keras")
            config = recommender.get_config()
            write_manifest(folder, _FORMAT, config=config, curve=recommender.curve)
    except OSError as error:
        raise SavedModelError(
            f"The recommender could not be saved to {path}: {error}. What was there before is "
            f"unchanged. Free on this disk: {_free(path)}."
        ) from error


def write_manifest(folder: Path, format: str, **contents: Any) -> None:
    """Writes what a folder holds and by which versions, with the sizes of its files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest = {
        "format": format,
        "tfrec_llm": tfrec_llm.__version__,
        "keras": keras.version(),
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


def read_recommender(path: Path) -> SavedRecommender:
    """Reads what `write_recommender` wrote; see `Recommender.load`."""
    manifest = read_manifest(path, _FORMAT)
    try:
        return SavedRecommender(
            config=manifest["config"],
            model=keras.saving.load_model(path / "model.keras", compile=False),
            vocabulary=Vocabulary.load(path / "vocabulary.parquet"),
            histories=UserSequences.load(path / "histories"),
            catalogue=(
                Catalogue.load(path / "catalogue.parquet")
                if "catalogue.parquet" in manifest["files"]
                else None
            ),
            curve=manifest["curve"],
        )
    except (OSError, ValueError, TfrecError) as error:
        raise SavedModelError(f"{path} cannot be read: {error}") from error


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


def _free(path: Path) -> str:
    folder = path.parent if path.parent.exists() else Path(".")
    return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
