"""The weights of the best epoch, and when to stop looking for a better one."""

from typing import Any

import keras
import numpy as np


class BestWeights(keras.callbacks.Callback):
    """Keeps the best epoch's weights of a model that may be another than the trained one.

    Keras' `EarlyStopping` keeps those of the model that is trained; where a
    copy in another precision, or an average over epochs, makes the scores that
    were judged, that copy's weights are to be kept.

    Args:
        model: The model whose weights are kept and, at the end, given back.
        monitor: What it is judged by, such as `"val_ndcg@10"`; more is better.
        patience: Epochs without a better value after which training stops.

    Attributes:
        best: The best value, None before the first.
        best_epoch: Its epoch, from 0.
        best_weights: The weights then, None before the first.
        wait: Epochs since.

    Raises:
        KeyError: If `monitor` is not in an epoch's logs.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> BestWeights(model, monitor="val_ndcg@10", patience=10).best is None
        True
    """

    def __init__(self, model: keras.Model, *, monitor: str, patience: int):
        super().__init__()
        self.kept_of = model
        self.monitor = monitor
        self.patience = patience
        self.best: float | None = None
        self.best_epoch = -1
        self.best_weights: list[np.ndarray] | None = None
        self.wait = 0

    def on_train_begin(self, logs=None):
        self._forget()

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor not in (logs or {}):
            raise KeyError(f"{self.monitor!r} is not among the epoch's logs: {sorted(logs or {})}.")
        value = float(logs[self.monitor])
        if self.best is None or value > self.best:
            self.best, self.best_epoch, self.wait = value, epoch, 0
            self.best_weights = self.kept_of.get_weights()
            return
        self.wait += 1
        if self.wait >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.best_weights is not None:
            self.kept_of.set_weights(self.best_weights)

    def state(self) -> dict[str, Any]:
        """Returns what `take_up` needs to go on, the weights left out."""
        return {"best": self.best, "best_epoch": self.best_epoch, "wait": self.wait}

    def take_up(self, state: dict[str, Any], best_weights: list[np.ndarray]) -> None:
        """Goes on from what `state` returned."""
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]
        self.best_weights = best_weights or None

    def _forget(self) -> None:
        self.best, self.best_epoch, self.best_weights, self.wait = None, -1, None, 0
