"""What benchmarks share that rank a few items: places, figures, and the best epoch by them."""

from collections.abc import Callable

import keras
import numpy as np


def ranks_of(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns how many items stand above the target; of those that tie with it, half do.

    Args:
        scores: Float `[n, items]`.
        targets: The column of each row's target, int `[n]`.
    """
    own = scores[np.arange(len(targets)), targets][:, None]
    return (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2


def figures(ranks: np.ndarray) -> dict[str, float]:
    """Returns HR@10 and NDCG@10 of ranks, from 0."""
    hits = ranks < 10
    gains = np.where(hits, 1 / np.log2(ranks + 2), 0.0)
    return {"hr@10": round(float(hits.mean()), 4), "ndcg@10": round(float(gains.mean()), 4)}


class BestEpoch(keras.callbacks.Callback):
    """Stops when NDCG@10 is no longer better, and takes the best weights back.

    Args:
        measured: Returns the figures of validation.
        model: Returns the model that is measured, once training has begun.
        patience: Epochs without a better figure after which training stops.

    Attributes:
        figures: The best there were.
        epoch: Their epoch, from 0.
    """

    def __init__(
        self,
        measured: Callable[[], dict[str, float]],
        model: Callable[[], keras.Model],
        patience: int,
    ):
        super().__init__()
        self.measured, self.measured_model, self.patience = measured, model, patience
        self.figures = {"hr@10": -1.0, "ndcg@10": -1.0}
        self.epoch = 0
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch, logs=None):
        reached = self.measured()
        print(f"  validation: {reached}", flush=True)
        if reached["ndcg@10"] > self.figures["ndcg@10"]:
            self.figures, self.epoch = reached, epoch
            self.weights = self.measured_model().get_weights()
        elif epoch - self.epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.measured_model().set_weights(self.weights)
