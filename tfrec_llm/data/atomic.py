"""Files and folders that are replaced whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary file to write; it takes the place of `path` when the block succeeds.

    If the block fails, for instance on a full disk, the file that was at `path` stays.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> with replace_file(f"{folder}/note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> os.listdir(folder)
        ['note.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, as a rename is atomic only inside one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        yield temporary
        # On disk before the rename: else a power cut leaves the new name with no content.
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder to fill; it takes the place of `path` when the block succeeds.

    If the block fails, the folder that was at `path` stays.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> with replace_folder(f"{folder}/model") as temporary:
        ...     _ = (temporary / "weights").write_text("whole")
        >>> os.listdir(f"{folder}/model")
        ['weights']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(f"{temporary.name}.old")
    try:
        # mkdtemp makes it private; the result gets what any new folder would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        yield temporary
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
