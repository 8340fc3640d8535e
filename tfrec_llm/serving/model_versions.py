"""The versions of a model that a server has loaded, and how they change while it runs."""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrec_llm.errors import DataFileError, SavedModelError, TfrecError
from tfrec_llm.serving.exported_model import ExportedModel
from tfrec_llm.serving.traffic import read_traffic, version_for
from tfrec_llm.serving.version_folder import versions
from tfrec_llm.serving.warmup import read_warmup

_log = logging.getLogger("tfrec_llm.serving")


@dataclass(frozen=True)
class _Serving:
    """What answers at one moment: it is replaced whole."""

    models: Mapping[int, ExportedModel]
    shares: Mapping[int, float]


@dataclass(frozen=True)
class VersionState:
    """How a version stands, in TensorFlow Serving's words.

    Attributes:
        version: Its number.
        state: `"AVAILABLE"`, `"LOADING"` or `"END"`.
        error: Why it could not be loaded; empty where it could.
    """

    version: int
    state: str
    error: str = ""


class ModelVersions:
    """Loads the versions of a model that are wanted, and follows the folder.

    Without a file `traffic.json` the newest version answers everyone. A new version is loaded and
    warmed up before it answers; until then the old one does, and it finishes what it has begun.
    One that cannot be loaded, or whose scores are no numbers, changes nothing. When the newest
    folder is removed, the one before answers again.

    Args:
        folder: Of the model, with a folder for every version.

    Raises:
        SavedModelError: If there is no version that can be loaded.

    Example:
        >>> ModelVersions("nowhere")
        Traceback (most recent call last):
        tfrec_llm.errors.SavedModelError: There is no version of a model in nowhere...
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._refreshing = threading.Lock()
        self._serving = _Serving({}, {})
        self._states: dict[int, VersionState] = {}
        self._failed: dict[int, float] = {}
        self.refresh()
        if not self._serving.models:
            reasons = [state.error for state in self._states.values() if state.error]
            why = reasons[-1] if reasons else "Write one with Recommender.export()."
            raise SavedModelError(f"There is no version of a model in {self.folder}. {why}")

    def refresh(self) -> bool:
        """Looks at the folder, and loads and lets go of versions as it says.

        Returns:
            Whether something changed.
        """
        with self._refreshing:
            wanted = self._wanted()
            models = dict(self._serving.models)
            for version in wanted:
                if version not in models:
                    model = self._load(version)
                    if model is not None:
                        models[version] = model
            shares = {version: share for version, share in wanted.items() if version in models}
            if not sum(shares.values()):
                # What is wanted cannot be had: the newest that can answers.
                newest = self._newest(models)
                shares = {} if newest is None else {newest.version: 1.0}
                models |= {} if newest is None else {newest.version: newest}
            models = {version: models[version] for version in sorted(shares)}
            if not models:  # better an old model than none
                return False
            before, self._serving = self._serving, _Serving(models, shares)
            for version in before.models.keys() - models.keys():
                self._states[version] = VersionState(version, "END")
            changed = before != self._serving
            if changed:
                _log.info("serving versions", extra={"shares": shares})
            return changed

    def for_user(self, user: str) -> ExportedModel:
        """Returns the model that answers a user."""
        serving = self._serving
        return serving.models[version_for(user, serving.shares)]

    def get(self, version: int | None = None) -> ExportedModel:
        """Returns a version, or the newest that is loaded.

        Raises:
            LookupError: If it is not loaded.
        """
        models = self._serving.models
        if version is None:
            return models[max(models)]
        if version not in models:
            raise LookupError(f"version {version} is not loaded; there are {sorted(models)}")
        return models[version]

    @property
    def shares(self) -> dict[int, float]:
        """Shares of the users by version."""
        return dict(self._serving.shares)

    def states(self) -> list[VersionState]:
        """Returns how all versions stand, the newest first."""
        return sorted(self._states.values(), key=lambda state: -state.version)

    def _wanted(self) -> dict[int, float]:
        there = versions(self.folder)
        try:
            shares = read_traffic(self.folder)
        except DataFileError as error:
            # A damaged file must not move users: all stays as it is.
            _log.error("traffic file", extra={"reason": str(error)})
            return dict(self._serving.shares) or ({there[-1]: 1.0} if there else {})
        if shares is None:
            return {there[-1]: 1.0} if there else {}
        return {version: share for version, share in shares.items() if share and version in there}

    def _newest(self, models: Mapping[int, ExportedModel]) -> ExportedModel | None:
        """Returns the newest version on the disk that is loaded or can be."""
        for version in reversed(versions(self.folder)):
            model = models.get(version) or self._load(version)
            if model is not None:
                return model
        return self._serving.models[max(self._serving.models)] if self._serving.models else None

    def _load(self, version: int) -> ExportedModel | None:
        """Loads and warms up a version; None if it fails, and until it is written anew."""
        folder = self.folder / str(version)
        try:
            written = folder.stat().st_mtime
        except OSError:
            return None
        if self._failed.get(version) == written:
            return None
        self._states[version] = VersionState(version, "LOADING")
        try:
            model = ExportedModel(folder)
            for signature, inputs in read_warmup(folder):
                _check_finite(folder, signature, model.call(signature, inputs))
        except Exception as error:
            # Whatever is wrong with it, the versions that answer must go on.
            self._failed[version] = written
            reason = str(error) if isinstance(error, TfrecError) else type(error).__name__
            self._states[version] = VersionState(version, "END", reason)
            _log.error("version cannot be loaded", extra={"version": version, "reason": reason})
            return None
        self._failed.pop(version, None)
        self._states[version] = VersionState(version, "AVAILABLE")
        return model


def _check_finite(folder: Path, signature: str, outputs: Mapping[str, np.ndarray]) -> None:
    """Refuses a model whose training diverged: its lists would be empty."""
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SavedModelError(
                f"{folder} gives {name} by {signature} that are not finite: train it anew."
            )
