"""Batches whose rows several devices can share evenly."""

from typing import Any

import keras
import numpy as np


class EvenRows(keras.utils.PyDataset):
    """Fills the rows of every batch up to a multiple; rows of zeros are padding and weigh nothing.

    On JAX the devices of `keras.distribution` share a batch only if its rows divide by their
    number. Rows of zeros hold no behaviour, target or weight in this library's batches.

    Args:
        batches: A `keras.utils.PyDataset`.
        multiple: What the number of rows is to divide by.

    Raises:
        ValueError: When a batch is read that does not divide and has float targets without
            weights, of which zeros would count.

    Example:
        >>> vocabulary = tfrec_llm.data.Vocabulary(["a", "b", "c"])
        >>> sequences = tfrec_llm.data.UserSequences.from_histories(
        ...     [["a", "b", "c"], ["b", "a"]], vocabulary
        ... )
        >>> batches = tfrec_llm.data.next_batches(sequences, batch_size=1)
        >>> inputs, targets = EvenRows(batches, 2)[0]
        >>> inputs["items"].shape, targets[1].any()
        ((2, 8), np.False_)
    """

    def __init__(self, batches: keras.utils.PyDataset, multiple: int):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches = batches
        self.multiple = multiple

    @property
    def num_batches(self) -> int | None:
        """Batches of an epoch; None where they do not end."""
        return self.batches.num_batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        batch = self.batches[index]
        rows = len(keras.tree.flatten(batch)[0])
        missing = -rows % self.multiple
        if not missing:
            return batch
        if isinstance(batch, tuple) and len(batch) == 2:
            kinds = {np.asarray(values).dtype.kind for values in keras.tree.flatten(batch[1])}
            if kinds - {"i", "u"}:
                raise ValueError(
                    f"{self.multiple} devices cannot share a batch of {rows} rows. Give the batch "
                    "sample weights, or choose a batch_size that divides by the devices and "
                    "leave the rest of the rows out."
                )

        def filled(values):
            values = np.asarray(values)
            return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])

        return keras.tree.map_structure(filled, batch)

    def on_epoch_begin(self) -> None:
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.batches.on_epoch_end()
