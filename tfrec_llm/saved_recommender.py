"""The folder a recommender is saved in."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

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


@dataclass(frozen=True)
class SavedRecommender:
    """What a saved folder holds."""

    config: dict[str, Any]
    model: Any
    known: KnownParts
    curve: list[dict[str, float]]


def write_recommender(recommender: "Recommender", path: Path) -> None:
    """Writes a fitted recommender; see `Recommender.save`."""
    check_target(path)
    try:
        with replace_folder(path) as folder:
            save_parts(recommender, folder)
            recommender.model.save(folder / "model.keras")
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
        )
    except (OSError, ValueError, TfrecError) as error:
        raise SavedModelError(f"{path} cannot be read: {error}") from error


def _free(path: Path) -> str:
    folder = path.parent if path.parent.exists() else Path(".")
    return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
