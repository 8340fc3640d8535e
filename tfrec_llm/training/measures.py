"""What a training costs, epoch by epoch."""

import sys
import time
from typing import Any

import keras


class TrainingMeasures(keras.callbacks.Callback):
    """Adds learning rate, time, throughput and memory to an epoch's logs.

    `learning_rate` at the epoch's end; `seconds` of its steps, without
    validation; `memory_gb`, the most main memory that the process has held so
    far; and, of batches that are packed, `behaviors_per_second` and
    `padding`, the share of places that hold no behaviour. It stands before
    callbacks that read the logs.

    Args:
        batches: What `fit` trains on, to tell behaviours from padding; None
            leaves both measures out.

    Example:
        >>> log = tfrec_llm.data.ShopSimulator(50, 20).simulate()
        >>> vocabulary = tfrec_llm.data.Vocabulary.fit(log.item)
        >>> batches = tfrec_llm.data.next_batches(log, vocabulary=vocabulary)
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocabulary.size, 8, 1, 2)
        >>> model = tfrec_llm.models.NextBehaviorModel(encoder)
        >>> model.compile("adam")
        >>> history = model.fit(batches, callbacks=[TrainingMeasures(batches)], verbose=0).history
        >>> sorted(history)[:3]
        ['behaviors_per_second', 'learning_rate', 'loss']
    """

    def __init__(self, batches: Any = None):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        # What the epoch reads: at its end the batches may have turned to the next one.
        self._read = getattr(self.batches, "num_behaviors", None)
        if self._read is not None:
            self._places = self.batches.num_rows * self.batches.row_length
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        logs["seconds"] = time.perf_counter() - self._begin
        logs["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )
        if self._read is not None:
            logs["behaviors_per_second"] = self._read / logs["seconds"]
            logs["padding"] = 1.0 - self._read / self._places
        memory = _peak_memory()
        if memory is not None:
            logs["memory_gb"] = memory


def _peak_memory() -> float | None:
    """Returns the most GiB that the process has held, None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 2**30 if sys.platform == "darwin" else held / 2**20
