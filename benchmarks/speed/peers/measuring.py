"""What every worker measures by: one clock, one memory gauge, one ranking, for all libraries alike.

Needs NumPy and the standard library only, as each worker runs in its own library's environment.
"""

import contextlib
import json
import math
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np


def read_job() -> dict:
    """Returns the job that the driver wrote, the settings of one measurement."""
    return json.loads(Path(sys.argv[1]).read_text())


def write_json(path: str, value: dict) -> None:
    """Writes a file whole or not at all."""
    temporary = f"{path}.{os.getpid()}"
    Path(temporary).write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


class Steps:
    """Times the steps of a training, from the end of one to the end of the next.

    So an epoch's time holds all there is to it: loading, shuffling, logging, and what stands
    between two epochs.

    Args:
        steps: Steps of an epoch.
        epochs: Epochs to measure.
        warmup: First steps, which are not counted; the first epoch follows by the others.
    """

    def __init__(self, steps: int, *, epochs: int, warmup: int):
        self.steps = steps
        self.warmup = max(1, min(warmup, steps - 1))
        self.epochs = epochs
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.memory = Memory()

    def begin(self) -> None:
        """Notes the memory before the first step."""
        self.memory.begin()

    def end_step(self, loss: float | None = None) -> None:
        """Notes the end of a step and its loss."""
        self.ends.append(time.perf_counter())
        if loss is not None:
            self.losses.append(loss)

    def result(self) -> dict:
        """Returns seconds an epoch, the losses and the memory."""
        ends, first = np.asarray(self.ends), self.warmup - 1
        last = np.arange(1, self.epochs + 1) * self.steps - 1
        begins = np.concatenate([[first], last[:-1]])
        seconds = (ends[last] - ends[begins]) / (last - begins) * self.steps
        losses = np.array_split(np.asarray(self.losses), self.epochs)
        return {
            "seconds_an_epoch": seconds.tolist(),
            "steps_an_epoch": self.steps,
            "steps_measured": len(ends) - self.warmup,
            "first_loss": float(self.losses[0]) if self.losses else math.nan,
            "mean_losses": [float(part.mean()) for part in losses],
            **self.memory.result(),
        }


class Memory:
    """The memory of this process: before training, and its peak from then on."""

    def begin(self) -> None:
        with contextlib.suppress(OSError):
            # Linux forgets the peak so far, that of imports and of reading the data.
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _status("VmRSS")

    def result(self) -> dict:
        """Returns megabytes: the process' peak, and what training added."""
        peak = _status("VmHWM")
        return {"process_megabytes": peak, "added_megabytes": max(0.0, peak - self.before)}


def _status(name: str) -> float:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1e3
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1e6 if sys.platform == "darwin" else 1e3)


def users_a_second(recommend, users: int) -> float:
    """Returns how many users a second call of `recommend` serves; the first warms up."""
    recommend()
    begin = time.perf_counter()
    recommend()
    return users / (time.perf_counter() - begin)


class Curve:
    """Validation by training time, written after every epoch, and when to stop.

    Args:
        path: The file.
        patience: Epochs without a better value after which it stops; 0 for no end.
        max_seconds: Training time after which it stops.
        target: Value at which it stops; None for none.
    """

    def __init__(
        self, path: str, *, patience: int, max_seconds: float, target: float | None = None
    ):
        self.path = path
        self.patience = patience
        self.max_seconds = max_seconds
        self.target = target
        self.epochs: list[dict] = []
        self.best = -1.0
        self.wait = 0

    def add(self, seconds: float, ndcg: float, loss: float) -> bool:
        """Adds an epoch: training seconds from the first step on, validation, loss.

        Returns:
            Whether training is to stop.
        """
        self.epochs.append({"seconds": seconds, "ndcg@10": ndcg, "loss": loss})
        self.wait = 0 if ndcg > self.best else self.wait + 1
        self.best = max(self.best, ndcg)
        stopped = None
        if self.target is not None and ndcg >= self.target:
            stopped = "reached the target"
        elif self.patience and self.wait >= self.patience:
            stopped = f"{self.patience} epochs without a better one"
        elif seconds >= self.max_seconds:
            stopped = "out of time"
        write_json(self.path, {"curve": self.epochs, "stopped": stopped})
        return stopped is not None


def ndcg_at_10(scores: np.ndarray, targets: np.ndarray, seen: tuple) -> np.ndarray:
    """Returns NDCG@10 of every row; ties count against the target, seen items are not ranked.

    Args:
        scores: float `[users, items]`; changed in place.
        targets: Integer `[users]`, columns; -1 for an item without one, which is a miss.
        seen: Rows and columns of what the users did before.
    """
    scores[seen] = -np.inf
    own = scores[np.arange(len(targets)), np.maximum(targets, 0)]
    ranks = (scores >= own[:, None]).sum(axis=1).astype(float)
    ranks[(targets < 0) | (own == -np.inf)] = np.inf
    return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)
