"""The order in which an epoch takes the batches of a data set."""

from typing import Any

import keras
import numpy as np

# Tells the draws of the order from those of packing.
_ORDER_DRAWS = 1 << 21


class EpochOrder(keras.utils.PyDataset):
    """Gives batches in an order that follows from a seed and the epoch alone.

    Keras shuffles batches by Python's global random state, which neither repeats where batches
    are read ahead, nor can be taken up in the middle of an epoch, nor is the same on all workers.

    Args:
        batches: A `keras.utils.PyDataset`. What it has of `seed`, `epoch` and `set_epoch()` is
            used, as `PackedBatches` has them.
        shuffle: Whether the order changes from epoch to epoch.

    Attributes:
        epoch: The epoch whose batches are given, counted from 0.

    Example:
        >>> class Numbers(keras.utils.PyDataset):
        ...     def __len__(self):
        ...         return 4
        ...
        ...     def __getitem__(self, index):
        ...         return np.array([index])
        >>> ordered = EpochOrder(Numbers(), shuffle=True)
        >>> sorted(int(ordered[index][0]) for index in range(len(ordered)))
        [0, 1, 2, 3]
    """

    def __init__(self, batches: keras.utils.PyDataset, *, shuffle: bool):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches
        self.shuffle = shuffle
        self.epoch = int(getattr(batches, "epoch", 0))

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)

    @property
    def num_batches(self) -> int | None:
        """Batches of an epoch; None where they do not end."""
        return self.batches.num_batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        count = self.num_batches
        if not self.shuffle or count is None:
            return self.batches[index]
        seed = getattr(self.batches, "seed", None) or 0
        order = np.random.default_rng([seed, self.epoch, _ORDER_DRAWS]).permutation(count)
        return self.batches[int(order[index])]

    def on_epoch_begin(self) -> None:
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.batches.on_epoch_end()
