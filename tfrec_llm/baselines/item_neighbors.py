"""Items that the same users took."""

import numpy as np
from scipy import sparse

from tfrec_llm.baselines.baseline import Baseline
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.vocabulary import NUM_RESERVED

_BLOCK = 2048


class ItemNeighbors(Baseline):
    """Scores an item by its likeness to the items of a history, in any order.

    The likeness of two items is the cosine of the sets of users that took
    them, `common / (sqrt(n_a * n_b) + shrinkage)`.

    Args:
        neighbors: Most alike items kept of each item.
        shrinkage: Draws likeness that few users vouch for towards 0.

    Raises:
        ValueError: If `neighbors` is below 1 or `shrinkage` negative.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(50, 20).simulate()
        >>> neighbors = ItemNeighbors().fit(log)
        >>> len(neighbors.recommend(histories=[[log.item[0].as_py()]], k=3))
        3

    Reference:
        Item-based top-N recommendation algorithms,
        https://doi.org/10.1145/963770.963776
    """

    def __init__(self, neighbors: int = 100, shrinkage: float = 10.0):
        if neighbors < 1 or shrinkage < 0:
            raise ValueError(
                f"neighbors must be 1 or more and shrinkage 0 or more, got {neighbors} and "
                f"{shrinkage}."
            )
        self.neighbors = neighbors
        self.shrinkage = shrinkage

    def count(self, sequences: UserSequences) -> None:
        taken = self._taken(sequences)
        users = np.asarray(taken.sum(axis=0)).reshape(-1)
        by_item = taken.T.tocsr()
        blocks = [
            self._block(by_item, taken, users, start)
            for start in range(0, self.vocabulary.size, _BLOCK)
        ]
        self._alike = sparse.vstack(blocks, format="csr")

    def rate(self, sequences: UserSequences) -> np.ndarray:
        return (self._taken(sequences) @ self._alike).toarray()

    def _taken(self, sequences: UserSequences) -> sparse.csr_array:
        """[users, items]: 1 where a history holds an item."""
        users = np.repeat(np.arange(len(sequences)), sequences.lengths)
        items = np.asarray(sequences.items, np.int64)
        known = items >= NUM_RESERVED
        taken = sparse.coo_array(
            (np.ones(np.count_nonzero(known)), (users[known], items[known])),
            shape=(len(sequences), self.vocabulary.size),
        ).tocsr()
        taken.data[:] = 1.0
        return taken

    def _block(
        self, by_item: sparse.csr_array, taken: sparse.csr_array, users: np.ndarray, start: int
    ) -> sparse.csr_array:
        """The likeness of a block of items to all, the nearest neighbours only."""
        common = (by_item[start : start + _BLOCK] @ taken).tocoo()
        rows, columns = common.row, common.col
        apart = rows + start != columns
        rows, columns, both = rows[apart], columns[apart], common.data[apart]
        alike = both / (np.sqrt(users[rows + start] * users[columns]) + self.shrinkage)
        # Within a row the most alike first; the lower index where equal.
        order = np.lexsort((columns, -alike, rows))
        rows, columns, alike = rows[order], columns[order], alike[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left")
        kept = rank < self.neighbors
        return sparse.coo_array(
            (alike[kept], (rows[kept], columns[kept])),
            shape=(min(_BLOCK, self.vocabulary.size - start), self.vocabulary.size),
        ).tocsr()
