"""Training batches of a log that is larger than memory."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from tfrec_llm.data.batches import BEHAVIORS_A_BATCH, PackedBatches, row_length_for
from tfrec_llm.data.objectives import Batch, Objective
from tfrec_llm.data.packing import rows_needed
from tfrec_llm.data.shards import Shards
from tfrec_llm.errors import EmptyLogError


class ShardedBatches(keras.utils.PyDataset):
    """Packed batches from shards, a few of which are in memory at a time.

    Shards are read in blocks of about `buffer` behaviours; while one block is
    trained on, the next one is read. Every epoch takes the blocks in another
    order and shuffles and packs their users anew, by the seed and the epoch
    only. Pass `shuffle=False` to `fit`: it would take batches from all blocks
    in turn, and this raises an error then; `Recommender` does so by itself.

    Args:
        shards: The log.
        objective: What is predicted: `NextBehavior()`, `MaskedBehavior()` or
            any `Objective`.
        max_length: Newest behaviours of a user that are read.
        row_length: Places a row; None picks one as `PackedBatches` does.
        batch_size: Rows a step, which workers share; None takes about 4,096
            behaviours.
        buffer: Behaviours a block, among which users are shuffled.
        seed: Seed of order, packing and of what the objective draws.
        windows: As in `PackedBatches`.
        worker: Number of this worker, from 0, of several that train together.
        num_workers: Number of workers. They read different shards, and `fit`
            of this library's models trains on what each reads; all have as
            many batches as the one with the most, for which others begin
            again.

    Attributes:
        num_rows: Rows an epoch.
        num_behaviors: Behaviours that an epoch reads.

    Raises:
        EmptyLogError: If no user of this worker's shards has enough behaviours.
        ValueError: If there are fewer shards than workers.

    Example:
        >>> import tempfile
        >>> log = tfrec_llm.data.ShopSimulator(100, 30).simulate()
        >>> folder = tempfile.mkdtemp() + "/shards"
        >>> shards = tfrec_llm.data.Shards.write([log.table], folder, num_shards=4)
        >>> batches = ShardedBatches(shards, tfrec_llm.data.NextBehavior(), batch_size=2)
        >>> inputs, targets = batches[0]
        >>> sorted(inputs)
        ['items', 'positions', 'segments', 'target_positions']
    """

    def __init__(
        self,
        shards: Shards,
        objective: Objective,
        *,
        max_length: int = 200,
        row_length: int | None = None,
        batch_size: int | None = None,
        buffer: int = 2_000_000,
        seed: int = 0,
        windows: str = "newest",
        worker: int = 0,
        num_workers: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= worker < num_workers <= len(shards):
            raise ValueError(
                f"worker must be below num_workers, and {len(shards)} shards be enough for them; "
                f"got {worker} of {num_workers}."
            )
        self.shards = shards
        self.objective = objective
        self.max_length = max_length
        self.seed = seed
        self.windows = windows
        lengths = [
            np.maximum(np.minimum(each, max_length + objective.lookahead) - objective.lookahead, 0)
            for each in shards.lengths
        ]
        if not any(each.any() for each in lengths[worker::num_workers]):
            raise EmptyLogError(
                f"None of the users has the {1 + objective.lookahead} behaviours that a target "
                "needs."
            )
        self.row_length = row_length or row_length_for(np.concatenate(lengths))
        self.num_workers = num_workers
        rows = batch_size or BEHAVIORS_A_BATCH // self.row_length
        self.batch_size = max(1, rows // num_workers)
        of_workers = [
            self._blocks_of(lengths, number, num_workers, buffer) for number in range(num_workers)
        ]
        self._blocks, self._batches = of_workers[worker]
        self._num_batches = max(sum(batches) for _, batches in of_workers)
        own = [lengths[number] for block in self._blocks for number in block]
        self.num_behaviors = int(sum(each.sum() for each in own))
        self.num_rows = sum(
            rows_needed(np.concatenate([lengths[number] for number in block]), self.row_length)
            for block in self._blocks
        )
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "shards")
        self._loaded: tuple[int, PackedBatches] | None = None
        self._coming: tuple[int, Future] | None = None
        self._visited: list[int] = []
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Orders the blocks for an epoch, counted from 0; `fit` goes on by itself."""
        with self._lock:
            self.epoch = epoch
            rng = np.random.default_rng([self.seed, epoch])
            self._order = rng.permutation(len(self._blocks))
            sizes = np.asarray(self._batches)[self._order]
            self._ends = np.cumsum(sizes)
            self._loaded, self._coming, self._visited = None, None, []

    def on_epoch_end(self) -> None:
        """Orders the blocks for the next epoch."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, index: int) -> tuple[Batch, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        # A worker with fewer batches than others begins again.
        index %= int(self._ends[-1])
        place = int(np.searchsorted(self._ends, index, side="right"))
        with self._lock:
            batches = self._block(place)
            return batches[index - int(self._ends[place] - len(batches))]

    def _block(self, place: int) -> PackedBatches:
        """Returns the block at a place of the epoch's order, and has the next one read."""
        if self._loaded is None or self._loaded[0] != place:
            if self._visited.count(place) > 1:
                raise ValueError(
                    "Batches of shards are asked for in a random order, so that files are read "
                    "again and again. Pass shuffle=False to fit(): the batches shuffle by "
                    "themselves."
                )
            self._visited.append(place)
            if self._coming is not None and self._coming[0] == place:
                block = self._coming[1].result()
            else:
                block = self._read(place)
            self._loaded = place, block
            self._coming = None
            if place + 1 < len(self._order):
                self._coming = place + 1, self._reader.submit(self._read, place + 1)
        return self._loaded[1]

    def _read(self, place: int) -> PackedBatches:
        number = int(self._order[place])
        # Another seed for every block and epoch: each packs as if for its first epoch.
        seed = np.random.SeedSequence([self.seed, self.epoch, number]).generate_state(1)[0]
        return PackedBatches(
            self.shards.read(self._blocks[number]),
            self.objective,
            max_length=self.max_length,
            row_length=self.row_length,
            batch_size=self.batch_size,
            windows=self.windows,
            seed=int(seed),
        )

    def _blocks_of(
        self, lengths: list[np.ndarray], worker: int, num_workers: int, buffer: int
    ) -> tuple[list[list[int]], list[int]]:
        """Returns the shards of each of a worker's blocks, and how many batches a block gives."""
        blocks: list[list[int]] = []
        held = buffer
        for number in range(worker, len(lengths), num_workers):
            size = int(lengths[number].sum())
            if not size:
                continue
            if held + size > buffer:
                blocks.append([])
                held = 0
            blocks[-1].append(number)
            held += size
        batches = []
        for block in blocks:
            rows = rows_needed(np.concatenate([lengths[n] for n in block]), self.row_length)
            batches.append(-(-rows // self.batch_size))
        return blocks, batches
