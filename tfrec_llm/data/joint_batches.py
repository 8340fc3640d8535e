"""Batches of several objectives beside each other."""

from collections.abc import Mapping
from typing import Any

import keras

from tfrec_llm.data.batches import PackedBatches


class JointBatches(keras.utils.PyDataset):
    """The batches of several objectives, one of each a step, for `JointModel`.

    The first data set sets how many steps an epoch has. Of a longer one an
    epoch reads that many batches, of what it packs anew in every epoch; a
    shorter one is read again from its beginning.

    Args:
        batches: Data sets by the name of their objective, such as
            `{"next": next_batches(...), "contrastive": contrastive_batches(...)}`.

    Raises:
        ValueError: If there are none.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(80, 30).simulate()
        >>> batches = JointBatches(
        ...     {
        ...         "next": tfrec_llm.data.next_batches(log),
        ...         "contrastive": tfrec_llm.data.contrastive_batches(log),
        ...     }
        ... )
        >>> inputs, targets = batches[0]
        >>> sorted(inputs), targets["next"].shape == inputs["next"]["items"].shape
        (['contrastive', 'next'], True)
    """

    def __init__(self, batches: Mapping[str, PackedBatches], **kwargs: Any):
        super().__init__(**kwargs)
        if not batches:
            raise ValueError("JointBatches needs data sets, by the names of their objectives.")
        self.batches = dict(batches)
        self._steps = len(next(iter(self.batches.values())))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        for batches in self.batches.values():
            batches.set_epoch(epoch)

    def on_epoch_end(self) -> None:
        """Goes to the next epoch."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Any:
        """Returns a dict of inputs, one of targets and, where any are weighted, one of weights."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        parts: list[dict[str, Any]] = [{}, {}, {}]
        for name, batches in self.batches.items():
            for part, values in zip(parts, batches[index % len(batches)], strict=False):
                part[name] = values
        inputs, targets, weights = parts
        return (inputs, targets, weights) if weights else (inputs, targets)
