"""Pairs of a user and an item: what was done, and as many that were not as one likes."""

from typing import Any

import keras
import numpy as np

from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import EmptyLogError


class PairBatches(keras.utils.PyDataset):
    """Pairs of user and item with label 1 where the log holds them, and drawn ones with label 0.

    The drawn items are uniform over the vocabulary but for those that the
    user has in the log; every epoch draws anew.

    Args:
        log: What users did, each pair once for every row.
        users: Gives the users their indexes.
        items: Gives the items their indexes.
        negatives: Drawn pairs for each one of the log.
        batch_size: Pairs a batch.
        seed: Of order and draws.

    Raises:
        EmptyLogError: If the log has no rows.
        UnknownItemError: If a vocabulary lacks a user or an item of the log.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(20, 30).simulate()
        >>> fit = tfrec_llm.data.Vocabulary.fit
        >>> batches = PairBatches(log, fit(log.user), fit(log.item), negatives=4, batch_size=10)
        >>> (users, items), labels = batches[0]
        >>> users.shape, items.shape, labels.shape
        ((10,), (10,), (10,))
    """

    def __init__(
        self,
        log: BehaviorLog,
        users: Vocabulary,
        items: Vocabulary,
        *,
        negatives: int = 4,
        batch_size: int = 4096,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not len(log):
            raise EmptyLogError("The log has no rows, so there are no pairs.")
        if negatives < 0 or batch_size < 1:
            raise ValueError(
                "negatives must not be negative and batch_size positive, got "
                f"{negatives} and {batch_size}."
            )
        self.users = users.encode(log.user)
        self.items = items.encode(log.item)
        self.negatives = negatives
        self.batch_size = batch_size
        self.seed = seed
        self._num_items = items.size
        # Sorted, so that a draw is looked up by bisection.
        self._taken = np.unique(self.users.astype(np.int64) * items.size + self.items)
        per_user = np.bincount(self._taken // items.size)
        if negatives and per_user.max() >= len(items):
            raise ValueError(
                "A user has taken every item, so none is left to draw. Pass negatives=0 or leave "
                "this user out."
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws for an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        users = np.tile(self.users, 1 + self.negatives)
        drawn = self._draw(users[len(self.users) :], rng)
        labels = np.repeat([1.0, 0.0], [len(self.users), len(drawn)])
        order = rng.permutation(len(users))
        self._pairs = users[order], np.concatenate([self.items, drawn])[order]
        self._labels = labels[order].astype(np.float32)

    def on_epoch_end(self) -> None:
        """Draws for the next epoch."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-len(self._labels) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        users, items = self._pairs
        return (users[part], items[part]), self._labels[part]

    def _draw(self, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an item for each user that this user has not taken."""
        drawn = rng.integers(NUM_RESERVED, self._num_items, len(users)).astype(np.int32)
        again = np.arange(len(users))
        while True:
            pairs = users[again].astype(np.int64) * self._num_items + drawn[again]
            place = np.searchsorted(self._taken, pairs)
            found = self._taken[np.minimum(place, len(self._taken) - 1)] == pairs
            again = again[found]
            if not len(again):
                return drawn
            drawn[again] = rng.integers(NUM_RESERVED, self._num_items, len(again))
