"""The folder a recommender is saved in."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.saved_folder import (
    KnownParts,
    check_target,
    load_parts,
    read_manifest,
    save_parts,
    write_manifest,
)
from tfrec_llm.errors import SavedModelError, TfrecError

if TYPE_CHECKING:
    from tfrec_llm.recommender import Recommender

_FORMAT = "tfrec_llm.recommender.1"
_MOMENTS = "moments"


@dataclass(frozen=True)
class SavedRecommender:
    """What a saved folder holds."""

    config: dict[str, Any]
    model: Any
    known: KnownParts
    curve: list[dict[str, float]]
    moments: list[np.ndarray] | None


def write_recommender(recommender: "Recommender", path: Path) -> None:
    """Writes a fitted recommender; see `Recommender.save`."""
    check_target(path)
    try:
        with replace_folder(path) as folder:
            save_parts(recommender, folder)
            recommender.model.save(folder / "model.keras")
            _save_moments(recommender.moments, folder / _MOMENTS)
            config = recommender.get_config()
            write_manifest(folder, _FORMAT, config=config, curve=recommender.curve)
    except OSError as error:
        raise SavedModelError(
            f"The recommender could not be saved to {path}: {error}. What was there before is "
            f"unchanged. Free on this disk: {_free(path)}."
        ) from error


def read_recommender(path: Path) -> SavedRecommender:
    """Reads what `write_recommender` wrote; see `Recommender.load`."""
    manifest = read_manifest(path, _FORMAT)
    try:
        return SavedRecommender(
            config=manifest["config"],
            model=keras.saving.load_model(path / "model.keras", compile=False),
            known=load_parts(path, catalogue="catalogue.parquet" in manifest["files"]),
            curve=manifest["curve"],
            moments=_load_moments(path / _MOMENTS),
        )
    except (OSError, ValueError, TfrecError) as error:
        raise SavedModelError(f"{path} cannot be read: {error}") from error


def _save_moments(moments: list[np.ndarray] | None, folder: Path) -> None:
    if moments is None:
        return
    folder.mkdir()
    for number, values in enumerate(moments):
        np.save(folder / f"{number}.npy", values)


def _load_moments(folder: Path) -> list[np.ndarray] | None:
    """Maps the moments from disk: most who load a recommender do not train it."""
    if not folder.is_dir():
        return None
    files = [folder / f"{number}.npy" for number in range(len(list(folder.glob("*.npy"))))]
    return [np.load(file, mmap_mode="r") for file in files]


def _free(path: Path) -> str:
    folder = path.parent if path.parent.exists() else Path(".")
    return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
