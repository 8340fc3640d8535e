"""Labelled batches beside unlabelled ones."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfrec_llm.data.impression_batches import RankingBatches


class ConsistencyBatches(keras.utils.PyDataset):
    """Puts an unlabelled batch, and another view of it, beside every labelled one.

    An epoch is one pass over the labelled batches. The unlabelled ones go round: where the
    labelled end, the next epoch goes on.

    Args:
        labelled: Batches of inputs and labels, or these and weights.
        unlabelled: Batches of inputs, such as `ranking_batches(..., labels=None)`, or of inputs,
            labels and weights; the labels are not used, the weights are.
        augment: Gives the other view of the inputs, `augment(inputs, rng)`, such as
            `functools.partial(tfrec_llm.data.mask, rate=0.3)`. None leaves the difference to
            dropout.
        seed: Seed of the augmentation.

    Raises:
        ValueError: If one of the two has no batches.

    Example:
        >>> class Ones(keras.utils.PyDataset):
        ...     def __len__(self):
        ...         return 2
        ...
        ...     def __getitem__(self, index):
        ...         return np.ones((4, 3)), np.ones(4)
        >>> batches = ConsistencyBatches(Ones(), Ones(), augment=lambda x, rng: x + rng.random())
        >>> inputs, labels = batches[0]
        >>> sorted(inputs)
        ['labelled', 'other_view', 'unlabelled']
    """

    def __init__(
        self,
        labelled: keras.utils.PyDataset,
        unlabelled: keras.utils.PyDataset,
        *,
        augment: Callable[[Any, np.random.Generator], Any] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, batches in (("labelled", labelled), ("unlabelled", unlabelled)):
            if not len(batches):
                raise ValueError(f"There are no {name} batches.")
        self.labelled = labelled
        self.unlabelled = unlabelled
        self.augment = augment
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        inputs, *rest = self.labelled[index]
        turn = (self.epoch * len(self) + index) % len(self.unlabelled)
        plain, _, weights = keras.utils.unpack_x_y_sample_weight(self.unlabelled[turn])
        if weights is None and isinstance(self.unlabelled, RankingBatches):
            # Places without an impression weigh nothing.
            weights = (self.unlabelled.impressions(turn) >= 0).astype(np.float32)
        batch = {"labelled": inputs, "unlabelled": plain}
        if weights is not None:
            batch["unlabelled_weight"] = weights
        if self.augment is not None:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            batch["other_view"] = self.augment(plain, rng)
        return batch, *rest

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        for batches in (self.labelled, self.unlabelled):
            if hasattr(batches, "set_epoch"):
                batches.set_epoch(epoch)

    def on_epoch_end(self) -> None:
        """Goes on with the unlabelled batches that come next."""
        self.epoch += 1
        self.labelled.on_epoch_end()
        self.unlabelled.on_epoch_end()
