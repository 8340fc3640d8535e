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
from tfrec_llm.training.best_weights import BestWeights


class TrainingCheckpoint(keras.callbacks.Callback):
    """Keeps all that an interrupted training needs to end as if undisturbed.

    After every epoch one file is replaced: weights, optimizer and random
    state, and the best epoch's weights. When training is complete the
    file is removed.

    Args:
        path: The file.
        run: What identifies the run, JSON-able: a checkpoint of another run
            is refused.
        best: The callback whose state and best weights are kept, too.
        scoring: A model beside the trained one whose weights are kept, too,
            such as an average over epochs.

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
        best: BestWeights | None = None,
        scoring: keras.Model | None = None,
    ):
        super().__init__()
        self.path = Path(path)
        self.run = json.loads(json.dumps(run))
        self.best = best
        self.scoring = scoring
        self.curve: list[dict[str, float]] = []
        self._restored: tuple[dict[str, Any], list[np.ndarray]] | None = None

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
        variables = self._variables(model)
        for index, variable in enumerate(variables):
            variable.assign(arrays[f"variable_{index}"])
        self.curve = state["curve"]
        best_weights = [arrays[f"best_{index}"] for index in range(state["num_best"])]
        self._restored = state["best"], best_weights
        return state["epoch"] + 1

    def on_train_begin(self, logs=None):
        # The other forgets everything as training begins, so this callback stands behind it.
        if self._restored is not None and self.best is not None:
            self.best.take_up(*self._restored)

    def on_epoch_end(self, epoch, logs=None):
        self.curve.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        best_weights = (self.best.best_weights if self.best else None) or []
        state = {
            "epoch": epoch,
            "run": self.run,
            "curve": self.curve,
            "best": self.best.state() if self.best else {},
            "num_best": len(best_weights),
        }
        arrays: dict[str, Any] = {
            f"variable_{index}": np.asarray(keras.ops.convert_to_numpy(variable))
            for index, variable in enumerate(self._variables(self.model))
        }
        arrays |= {f"best_{index}": value for index, value in enumerate(best_weights)}
        with replace_file(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, state=np.array(json.dumps(state)), **arrays)

    def on_train_end(self, logs=None):
        self.path.unlink(missing_ok=True)

    def _variables(self, model: keras.Model) -> list[Any]:
        seeds = [v for v in model.non_trainable_variables if v not in model.non_trainable_weights]
        beside = [] if self.scoring in (None, model) else self.scoring.weights
        return [*model.weights, *seeds, *model.optimizer.variables, *beside]
