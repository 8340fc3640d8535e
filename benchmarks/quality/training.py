"""One seed of a setting: the weights of the epoch that is best under each protocol."""

from pathlib import Path
from typing import Any

import keras
from settings import FILTER_SEEN

from tfrec_llm import Recommender
from tfrec_llm.data import BehaviorLog, Split

METRIC = "ndcg@10"


def train(
    split: Split,
    objective: str,
    setting: dict[str, Any],
    *,
    protocols: list[str],
    seed: int,
    folder: Path,
) -> dict[str, Recommender]:
    """Trains one seed, or goes on with it, or loads it when it is complete.

    Args:
        split: Train and validation; test is not looked at.
        objective: `"next"` or `"masked"`.
        setting: Arguments of the recommender and of its fit.
        protocols: Those that choose an epoch each; the first one stops the training.
        seed: The seed.
        folder: Where checkpoint and models are kept.

    Returns:
        The recommender of the best epoch by protocol.
    """
    paths = {protocol: folder / f"seed{seed}_{protocol}" for protocol in protocols}
    first, *others = protocols
    # The first protocol's model is saved when training is over, so it tells that all are there.
    if not paths[first].exists():
        recommender = Recommender(objective, seed=seed, **setting["recommender"])
        recommender.fit(
            split.train,
            validation=split.valid,
            metric=METRIC,
            filter_seen=FILTER_SEEN[first],
            checkpoint=folder / f"seed{seed}_checkpoint.npz",
            callbacks=[
                BestUnder(recommender, split.valid, FILTER_SEEN[other], paths[other])
                for other in others
            ],
            verbose=2,
            **setting["fit"],
        )
        recommender.save(paths[first])
    return {protocol: Recommender.load(path) for protocol, path in paths.items()}


def best_epoch(recommender: Recommender) -> int:
    """Returns the epoch, from 0, that validation chose."""
    return int(max(recommender.curve, key=lambda row: row[f"val_{METRIC}"])["epoch"])


class BestUnder(keras.callbacks.Callback):
    """Saves the recommender at every epoch that is its best under another protocol.

    The saved curve holds that epoch alone, which is what an interrupted training goes on from.
    """

    def __init__(
        self, recommender: Recommender, log: BehaviorLog, filter_seen: bool, path: Path
    ) -> None:
        super().__init__()
        self.recommender = recommender
        self.log = log
        self.filter_seen = filter_seen
        self.path = path
        self.best: float | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.best is None:
            going_on = epoch > 0 and self.path.exists()
            row = Recommender.load(self.path).curve[-1] if going_on else {}
            self.best = row.get(f"val_{METRIC}", -1.0)

    def on_epoch_end(self, epoch, logs=None):
        report = self.recommender.evaluate(
            self.log, k=10, metrics=("ndcg",), filter_seen=self.filter_seen, confidence=None
        )
        if report[METRIC] > self.best:
            self.best = report[METRIC]
            self.recommender.curve = [{"epoch": epoch, f"val_{METRIC}": self.best}]
            self.recommender.save(self.path)
