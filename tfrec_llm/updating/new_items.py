"""Where the vectors of new items begin."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfrec_llm.data.vocabulary import NUM_RESERVED

if TYPE_CHECKING:
    from tfrec_llm.data.sequences import UserSequences
    from tfrec_llm.recommender import Recommender

# Behaviours between which items count as neighbours.
_DISTANCES = (1, 2)


def place_new_items(recommender: "Recommender", sequences: "UserSequences", first: int) -> int:
    """Gives new items the mean vector of what stands beside them in histories.

    One without such neighbours gets the mean of the known items of its category, by the first
    categorical column of the catalogue that tells one; without that it keeps the mean of all
    items, as `Recommender.extend` has set it. Items that a recommender reads by their features
    are left alone: these place them.

    Args:
        recommender: Extended already.
        sequences: Histories in which the new items occur.
        first: Index of the first new item.

    Returns:
        How many were placed.
    """
    vocabulary = recommender.vocabulary
    model = recommender.model
    if vocabulary.size <= first or recommender.item_features:
        return 0
    placed = np.zeros(0, np.int64)
    for layer in (model.encoder.item_embedding, model.output_embedding):
        if layer is None:
            continue
        table = np.array(keras.ops.convert_to_numpy(layer.table))
        sums, counts = _neighbors(sequences, table, first)
        _add_categories(recommender, table, first, sums, counts)
        placed = np.flatnonzero(counts)
        table[first + placed] = sums[placed] / counts[placed, None]
        layer.table.assign(table)
    return len(placed)


def _neighbors(
    sequences: "UserSequences", table: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of the vectors beside each new item and how many there are."""
    sums = np.zeros((len(table) - first, table.shape[1]), np.float64)
    counts = np.zeros(len(sums), np.int64)
    rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
    for distance in _DISTANCES:
        left, right = sequences.items[:-distance], sequences.items[distance:]
        same = rows[:-distance] == rows[distance:]
        for new, known in ((left, right), (right, left)):
            here = same & (new >= first) & (known >= NUM_RESERVED) & (known < first)
            np.add.at(sums, new[here] - first, table[known[here]])
            counts += np.bincount(new[here] - first, minlength=len(counts))
    return sums, counts


def _add_categories(
    recommender: "Recommender", table: np.ndarray, first: int, sums: np.ndarray, counts: np.ndarray
) -> None:
    """Puts the mean of their category in for new items without neighbours."""
    catalogue = recommender.catalogue
    if catalogue is None or counts.all():
        return
    columns = catalogue.lookup(recommender.vocabulary.ids)
    for name, kind in catalogue.types.items():
        if kind != "categorical":
            continue
        values: Any = np.array(columns[name].to_pylist(), object)
        known, new = values[: first - NUM_RESERVED], values[first - NUM_RESERVED :]
        for value in {new[place] for place in np.flatnonzero(counts == 0)} - {None}:
            alike = np.flatnonzero(known == value) + NUM_RESERVED
            if len(alike):
                mine = (counts == 0) & (new == value)
                sums[mine] = table[alike].mean(axis=0)
                counts[mine] = 1
