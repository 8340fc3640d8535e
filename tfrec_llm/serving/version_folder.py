"""The folders of exported models: `NAME/1`, `NAME/2`, ..."""

from pathlib import Path

from tfrec_llm.errors import SavedModelError

# TensorFlow Serving leaves this folder alone but for the warm-up requests in it.
EXTRA = "assets.extra"
DESCRIPTION = f"{EXTRA}/tfrec_llm.json"
INDEX = "index.faiss"
SNAPSHOT = "snapshot.npz"
FORMAT = "tfrec_llm.export.1"


def versions(folder: Path) -> list[int]:
    """Returns the versions of a model, rising: the names of its folders that are numbers."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir()
    )


def newest_version(folder: Path) -> Path:
    """Returns the folder of a model's newest version, or the folder itself if it is a version.

    Raises:
        SavedModelError: If there is none.
    """
    if (folder / DESCRIPTION).exists():
        return folder
    there = [
        version for version in versions(folder) if (folder / str(version) / DESCRIPTION).exists()
    ]
    if not there:
        raise SavedModelError(
            f"There is no version of a model in {folder}. Write one with Recommender.export()."
        )
    return folder / str(there[-1])


def version_folder(path: Path) -> Path:
    """Returns the folder to write a version to.

    Args:
        path: Of the version, whose name is a number; or of the model, for its next version.

    Raises:
        SavedModelError: If it is a file, or other files there would be lost.
    """
    if path.is_file():
        raise SavedModelError(f"{path} is a file; a model is exported as a folder.")
    if not path.name.isdecimal():
        return path / str(max(versions(path), default=0) + 1)
    if path.is_dir() and any(path.iterdir()) and not (path / DESCRIPTION).exists():
        raise SavedModelError(
            f"{path} is a folder with other files in it, which exporting would replace. Give a "
            "new folder."
        )
    return path
