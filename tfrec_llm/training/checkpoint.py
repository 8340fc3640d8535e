"""Training that goes on where it was interrupted."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.errors import SavedModelError


class TrainingCheckpoint(keras.callbacks.Callback):
    """Keeps all that an interrupted training needs to end as if undisturbed.

    After every epoch one file is replaced: weights, optimizer and random
    state, and what early stopping remembers. When training is complete the
    file is removed.

    Args:
        path: The file.
        run: What identifies the run, JSON-able: a checkpoint of another run
            is refused.
        early_stopping: The callback whose state is kept, too.

    Example:
        >>> checkpoint = TrainingCheckpoint("training.npz", run={"data": "eshop"})
        >>> checkpoint.restore(keras.Sequential())  # without a file training starts at epoch 0
        0
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: dict[str, Any],
        early_stopping: keras.callbacks.EarlyStopping | None = None,
    ):
        super().__init__()
        self.path = Path(path)
        self.run = json.loads(json.dumps(run))
        self.early_stopping = early_stopping
        self.curve: list[dict[str, float]] = []
        self._restored: dict[str, Any] | None = None

    def restore(self, model: keras.Model) -> int:
        """Takes the state of the file up and returns the epoch to start with.

        Args:
            model: The built and compiled model.

        Raises:
            SavedModelError: If the file is damaged or of another run.
        """
        if not self.path.exists():
            return 0
        try:
            with np.load(self.path) as stored:
                arrays = {name: stored[name] for name in stored.files}
            state = json.loads(str(arrays.pop("state")))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise SavedModelError(
                f"The checkpoint {self.path} cannot be read ({error}). Delete it to start anew."
            ) from error
        if state["run"] != self.run:
            changed = sorted(
                name
                for name in {*state["run"], *self.run}
                if state["run"].get(name) != self.run.get(name)
            )
            raise SavedModelError(
                f"The checkpoint {self.path} is of another training: {', '.join(changed)} differ. "
                "Delete it to start anew, or give another path."
            )
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        for index, variable in enumerate(variables):
            variable.assign(arrays[f"variable_{index}"])
        self.curve = state["curve"]
        best = [arrays[f"best_{index}"] for index in range(state["num_best"])]
        self._restored = state["early_stopping"] | {"best_weights": best or None}
        return state["epoch"] + 1

    def on_train_begin(self, logs=None):
        # Early stopping forgets everything as training begins, so this callback stands behind it.
        if self._restored is not None and self.early_stopping is not None:
            vars(self.early_stopping).update(self._restored)

    def on_epoch_end(self, epoch, logs=None):
        self.curve.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        stopping: dict[str, Any] = {}
        best: list[np.ndarray] = []
        if self.early_stopping is not None:
            held = vars(self.early_stopping)
            stopping = {name: held[name] for name in ("wait", "best", "best_epoch")}
            stopping["best"] = None if stopping["best"] is None else float(stopping["best"])
            best = held["best_weights"] or []
        state = {
            "epoch": epoch,
            "run": self.run,
            "curve": self.curve,
            "early_stopping": stopping,
            "num_best": len(best),
        }
        arrays: dict[str, Any] = {
            f"variable_{index}": np.asarray(keras.ops.convert_to_numpy(variable))
            for index, variable in enumerate(_variables(self.model))
        }
        arrays |= {f"best_{index}": value for index, value in enumerate(best)}
        with replace_file(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, state=np.array(json.dumps(state)), **arrays)

    def on_train_end(self, logs=None):
        self.path.unlink(missing_ok=True)


def _variables(model: keras.Model) -> list[Any]:
    seeds = [v for v in model.non_trainable_variables if v not in model.non_trainable_weights]
    return [*model.weights, *seeds, *model.optimizer.variables]
