"""New items, served as soon as the catalogue has them."""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_log = logging.getLogger("tfrec_llm.serving")

_EXPORT = "import sys; from tfrec_llm.cli import main; sys.exit(main())"


class CatalogueWatch:
    """Publishes the next version of a model whenever the file of its catalogue changes.

    A recommender that reads items by their features scores new ones without training. The export
    runs in a process of its own, so that a server answers meanwhile.

    Args:
        recommender: Folder of the saved recommender.
        catalogue: CSV or Parquet file, an item a row.
        model: Folder of the versions.
        options: Of `tfrec-llm export`, such as `["-k", "20"]`.
    """

    def __init__(
        self,
        recommender: str | os.PathLike[str],
        catalogue: str | os.PathLike[str],
        model: str | os.PathLike[str],
        *,
        options: Sequence[str] = (),
    ):
        self._catalogue = Path(catalogue)
        self._command = [
            *(sys.executable, "-c", _EXPORT, "export", os.fspath(recommender)),
            *("-o", os.fspath(model), "--catalogue", os.fspath(catalogue), *options),
        ]
        self._seen = self._written()

    def check(self) -> bool:
        """Publishes a version if the file is another than at the last look.

        Returns:
            Whether a version was published. If that fails, the reason is in the log.
        """
        written = self._written()
        if written is None or written == self._seen:
            return False
        self._seen = written
        done = subprocess.run(self._command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            _log.error("catalogue cannot be taken up", extra={"reason": reason})
            return False
        _log.info("catalogue taken up", extra={"result": done.stdout.strip().splitlines()})
        return True

    def _written(self) -> tuple[int, int] | None:
        try:
            about = self._catalogue.stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_size
