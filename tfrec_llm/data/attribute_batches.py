"""Batches in which some of the items' features are hidden, to be told from the others."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfrec_llm.data.feature_encoding import FeatureEncoding, known_features, missing_features
from tfrec_llm.data.feature_table import FeatureTable
from tfrec_llm.errors import DataError

Arrays = dict[str, np.ndarray]


class AttributeBatches(keras.utils.PyDataset):
    """Encoded items of which each hides some features, as if they were missing.

    At least one known feature of an item is hidden and one stays. Items with
    fewer than two known features are left out: there is nothing to tell them
    from. Every epoch orders the items and hides anew, by the seed and the
    epoch only.

    Args:
        encoding: Encodes the features.
        table: The items, a `FeatureTable` such as the catalogue, or arrays
            that the encoding gave.
        ids: The ids of a `FeatureTable` to read; all where None.
        mask_rate: Share of the known features that are hidden.
        batch_size: Items a batch.
        seed: Seed of order and masks.

    Attributes:
        num_short: Items with too few known features.

    Raises:
        DataError: If no item has two known features.
        ValueError: If `mask_rate` is out of its range.

    Example:
        >>> items = {"kind": ["top", "skirt", "top"], "usd": [5.0, 9.0, None]}
        >>> encoding = tfrec_llm.data.FeatureEncoding.fit(items)
        >>> batches = AttributeBatches(encoding, encoding.encode(items), seed=6)
        >>> inputs, targets, weights = batches[0]
        >>> inputs["kind"].tolist(), targets["kind"].tolist(), weights["kind"].tolist()
        ([3, 0], [3, 2], [0.0, 1.0])
    """

    def __init__(
        self,
        encoding: FeatureEncoding,
        table: FeatureTable | Mapping[str, np.ndarray],
        *,
        ids: Any = None,
        mask_rate: float = 0.3,
        batch_size: int = 256,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0.0 < mask_rate < 1.0:
            raise ValueError(f"mask_rate must lie between 0 and 1, got {mask_rate}.")
        self.specs = encoding.specs
        self.mask_rate = mask_rate
        self.batch_size = batch_size
        self.seed = seed
        arrays = encoding.encode(table, ids=ids) if isinstance(table, FeatureTable) else table
        known = known_features(self.specs, arrays)
        told = known.sum(axis=1) >= 2
        self.num_short = int((~told).sum())
        if not told.any():
            raise DataError(
                f"None of {len(told):,} items has two known features, so none can be told from "
                "another. Give more features."
            )
        self._arrays = {spec.name: np.asarray(arrays[spec.name])[told] for spec in self.specs}
        self._known = known[told]
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Orders the items for an epoch, counted from 0; `fit` goes on by itself."""
        self.epoch = epoch
        self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self._known))

    def on_epoch_end(self) -> None:
        """Orders the items for the next epoch."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-len(self._order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Arrays, Arrays, Arrays]:
        """Returns features with hidden ones as missing, whole features, and 1 where hidden."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        hidden = _hidden(self._known[rows], self.mask_rate, rng)
        missing = missing_features(self.specs, 1)
        inputs, targets, weights = {}, {}, {}
        for place, spec in enumerate(self.specs):
            whole = self._arrays[spec.name][rows]
            here = hidden[:, place].reshape(-1, *[1] * len(spec.shape))
            inputs[spec.name] = np.where(here, missing[spec.name], whole)
            targets[spec.name] = whole
            weights[spec.name] = hidden[:, place].astype(np.float32)
        return inputs, targets, weights


def _hidden(known: np.ndarray, mask_rate: float, rng: np.random.Generator) -> np.ndarray:
    """Returns which known features are hidden, bool `[rows, features]`: some but not all."""
    draws = np.where(known, rng.random(known.shape), np.nan)
    hidden = draws < mask_rate
    rows = np.arange(len(known))
    hidden[rows, np.nanargmin(draws, axis=1)] = True
    hidden[rows, np.nanargmax(draws, axis=1)] = False
    return hidden
