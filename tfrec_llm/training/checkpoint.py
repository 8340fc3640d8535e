"""Training that goes on where it was interrupted."""

import json
import os
import signal
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.errors import SavedModelError
from tfrec_llm.training.best_weights import BestWeights
from tfrec_llm.training.workers import is_first_worker, num_workers, workers_agree


class TrainingCheckpoint(keras.callbacks.Callback):
    """Keeps all that an interrupted training needs to end as if undisturbed.

    Weights, optimizer and random state, metrics, the place in the data and the best epoch's
    weights go into one file after every epoch, and after every `every` steps. A file is replaced
    when the new one is on disk, and the one before it stays beside it, as `PATH.previous`: it is
    taken where the newest is damaged. Where none can be written, for instance on a full disk, a
    warning says so and training goes on. When training is complete the files are removed.

    `fit` of this library's models takes the training up by itself. Ctrl-C and a request to
    terminate then wait for the step in work and save after it; a second Ctrl-C does not wait.

    Under `MultiWorkerMirroredStrategy` all workers pass the callback, with the same path in a
    folder that all of them see; the first worker writes.

    Args:
        path: The file.
        run: What identifies the run, JSON-able: a checkpoint of another run
            is refused.
        every: Steps between two checkpoints; None for those of epochs alone.
        best: The callback whose state and best weights are kept, too.
        scoring: A model beside the trained one whose weights are kept, too,
            such as an average over epochs.

    Attributes:
        curve: The logs of the epochs so far, a dict each.

    Raises:
        SavedModelError: As training begins, if the checkpoint is of another run, or damaged and
            the one before it, too, or if workers find different ones; as the epoch begins, if it
            is of a step where none of `steps_per_execution` steps begins.

    Example:
        >>> checkpoint = TrainingCheckpoint("training.npz", run={"data": "eshop"}, every=500)
        >>> checkpoint.restore(keras.Sequential())  # without a file training starts at epoch 0
        0
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: dict[str, Any] | None = None,
        every: int | None = None,
        best: BestWeights | None = None,
        scoring: keras.Model | None = None,
    ):
        super().__init__()
        if every is not None and every < 1:
            raise ValueError(f"every must be 1 step or more, got {every}.")
        self.path = Path(path)
        self.run = json.loads(json.dumps(run or {}))
        self.every = every
        self.best = best
        self.scoring = scoring
        self.curve: list[dict[str, float]] = []
        self._restored: _Stored | None = None
        self._epoch = 0
        self._step = 0
        self._stop_signal: int | None = None
        self._newest_is_damaged = False

    @property
    def previous(self) -> Path:
        """Where the checkpoint before the newest one is."""
        return self.path.with_name(f"{self.path.name}.previous")

    def restore(self, model: keras.Model) -> int:
        """Takes the state of the file up and returns the epoch to start with.

        `fit` of this library's models calls it where it was not called before.

        Args:
            model: The built and compiled model.

        Raises:
            SavedModelError: If the files are damaged or of another run.
        """
        stored = self._newest_whole()
        if stored is None:
            return 0
        state = stored.state
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
        if model.optimizer is not None:
            model.optimizer.build(model.trainable_variables)
        variables = self._variables(model)
        shapes = [list(variable.shape) for variable in variables]
        if [list(each.shape) for each in stored.of("variable")] != shapes:
            raise SavedModelError(
                f"The checkpoint {self.path} is of a model or an optimizer with other weights. "
                "Delete it to start anew, or give another path."
            )
        for variable, value in zip(variables, stored.of("variable"), strict=True):
            variable.assign(value)
        self.curve = state["curve"]
        self._restored = stored
        return state["epoch"]

    def stop_after_step(self, number: int) -> None:
        """Saves after the step in work and ends the process' training by that signal."""
        if num_workers(self.model) > 1:
            # The workers get the signal at different steps, and would wait for each other.
            _raise(number)
        self._stop_signal = number

    def on_train_begin(self, logs=None):
        self._stop_signal = None
        if self._restored is None:
            self.model._initial_epoch = self.restore(self.model) or None
        state = {} if self._restored is None else self._restored.state
        if not workers_agree(self.model, [state.get("epoch", 0), state.get("step", 0)]):
            raise SavedModelError(
                f"The workers found different checkpoints at {self.path}. Put it into a folder "
                "that all of them see."
            )
        if self._restored is None:
            return
        # The other forgets everything as training begins, so this callback stands behind it.
        if self.best is not None:
            self.best.take_up(self._restored.state["best"], self._restored.of("best"))
        order = getattr(self.model, "epoch_order", None)
        if order is not None and self._restored.state["data_epoch"] is not None:
            order.set_epoch(self._restored.state["data_epoch"])

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._step = 0
        if self._restored is None:
            return
        step = self._restored.state["step"]
        if step and not hasattr(self.model, "steps_to_skip"):
            raise SavedModelError(
                f"The checkpoint {self.path} is of step {step} of an epoch, and this model cannot "
                "go on within one. Train a model of this library, or delete the file."
            )
        if step % self.model.steps_per_execution:
            raise SavedModelError(
                f"The checkpoint {self.path} is of step {step} of an epoch, where no call of "
                f"{self.model.steps_per_execution} steps begins. Compile the model with the "
                "steps_per_execution it had."
            )
        if step:
            self.model.steps_to_skip = step
            self.model.build_metrics()
            variables, values = self.model.metrics_variables, self._restored.of("metric")
            # Keras has just reset them. Where they cannot be made yet, the epoch's logs are of
            # the steps to come.
            if len(variables) == len(values):
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
        self._restored = None

    def on_train_batch_end(self, batch, logs=None):
        before, self._step = self._step, batch + 1
        # On JAX, self.model would fetch all state from the devices at every step.
        if getattr(self._model, "steps_to_skip", 0) > 0:
            return
        stopped = self._stop_signal
        # Several steps may have been taken since the last call.
        due = self.every is not None and self._step // self.every > before // self.every
        if stopped is not None or due:
            self._save(self._epoch, self._step)
        if stopped is not None:
            _raise(stopped)

    def on_epoch_end(self, epoch, logs=None):
        self.curve.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        self._save(epoch + 1, 0)
        if self._stop_signal is not None:
            _raise(self._stop_signal)

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        self._restored = None
        if is_first_worker(self.model):
            self.path.unlink(missing_ok=True)
            self.previous.unlink(missing_ok=True)

    def _save(self, epoch: int, step: int) -> None:
        """Writes what continues with that step of that epoch."""
        best_weights = (self.best.best_weights if self.best else None) or []
        order = getattr(self.model, "epoch_order", None)
        kept = {
            "variable": self._variables(self.model),
            "metric": self.model.metrics_variables if step else [],
            "best": best_weights,
        }
        state = {
            "epoch": epoch,
            "step": step,
            "data_epoch": None if order is None else order.epoch,
            "run": self.run,
            "curve": self.curve,
            "best": self.best.state() if self.best else {},
            "counts": {kind: len(values) for kind, values in kept.items()},
        }
        # On every worker, as the sums of metrics are read from all.
        arrays: dict[str, Any] = {
            f"{kind}_{index}": np.asarray(keras.ops.convert_to_numpy(value))
            for kind, values in kept.items()
            for index, value in enumerate(values)
        }
        if not is_first_worker(self.model):
            return
        try:
            with replace_file(self.path) as temporary:
                with open(temporary, "wb") as file:
                    np.savez(file, state=np.array(json.dumps(state)), **arrays)
                    file.flush()
                    os.fsync(file.fileno())
                # The whole one before is worth more than a damaged one.
                if self.path.exists() and not self._newest_is_damaged:
                    os.replace(self.path, self.previous)
            self._newest_is_damaged = False
        except OSError as error:
            warnings.warn(
                f"The checkpoint {self.path} could not be written ({error}). Training goes on; an "
                "interrupted one would go on from the checkpoint before.",
                stacklevel=2,
            )

    def _newest_whole(self) -> "_Stored | None":
        """Returns the newest checkpoint that is whole, None if there is none at all."""
        damaged: list[tuple[Path, Exception]] = []
        signs = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                stored = _Stored.read(path)
            except signs as error:
                damaged.append((path, error))
                continue
            self._newest_is_damaged = bool(damaged)
            for other, reason in damaged:
                warnings.warn(
                    f"The checkpoint {other} cannot be read ({reason}). Training goes on from the "
                    "one before.",
                    stacklevel=3,
                )
            return stored
        if damaged:
            path, reason = damaged[0]
            raise SavedModelError(
                f"The checkpoint {path} cannot be read ({reason}). Delete it to start anew."
            ) from reason
        return None

    def _variables(self, model: keras.Model) -> list[Any]:
        seeds = [v for v in model.non_trainable_variables if v not in model.non_trainable_weights]
        beside = [] if self.scoring in (None, model) else self.scoring.weights
        return [*model.weights, *seeds, *model.optimizer.variables, *beside]


class _Stored:
    """What a checkpoint's file holds."""

    def __init__(self, state: dict[str, Any], arrays: dict[str, np.ndarray]):
        self.state = state
        self._arrays = arrays

    @classmethod
    def read(cls, path: Path) -> "_Stored":
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return cls(json.loads(str(arrays.pop("state"))), arrays)

    def of(self, kind: str) -> list[np.ndarray]:
        count = self.state["counts"][kind]
        return [self._arrays[f"{kind}_{index}"] for index in range(count)]


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
