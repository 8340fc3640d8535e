"""How often the true item is among the best of a whole catalogue."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# Queries whose scores are in memory at a time.
_QUERIES = 1024
# Products of equal vectors differ by rounding; scores that are this near, as a share of the
# vectors' lengths, are ties.
_ROUNDING = 1e-6


@keras.saving.register_keras_serializable(package="tfrec_llm")
class StreamingTopK(keras.metrics.Metric):
    """Share of queries whose true row is among the k best of a catalogue, for several k.

    The score of a row is its product with the query. The catalogue passes by in chunks, so that
    memory grows with queries x `chunk_size`, not with the catalogue. Rows that tie with the true
    one, in float32, count as better: a model that gives all items one score finds nothing.

    Pass it to `compile` on TensorFlow with a weight of the model as catalogue; each batch is
    ranked by the weight's present values. On JAX a compiled step does not see them: update the
    metric in a loop of your own, with what `predict` gives. On a GPU TensorFlow rounds products
    to TF32, where ties differ, unless `tf.config.experimental` switches that off.

    Args:
        catalogue: Float `[items, emb_dim]`, an array, a tensor or a Keras variable. Configurations
            do not hold it: a loaded metric must be made anew.
        k: Lengths of the lists, 1 or more each.
        chunk_size: Rows of the catalogue that are scored at a time.
        name: Name of the metric.

    Call arguments:
        y_true: Integer tensor `[queries]` or `[queries, 1]`, rows of the catalogue; a negative
            one is never found.
        y_pred: Float tensor `[queries, emb_dim]`; or `[queries, 2, emb_dim]`, as
            `RetrievalLoss` takes it, of which only the first vector is used.
        sample_weight: Optional float tensor `[queries]`.

    Returns:
        `result()`: a dict of a float scalar for each k, `"hr@10"` for 10.

    Raises:
        ValueError: If a k or `chunk_size` is below 1, or if there is no catalogue when the metric
            is updated.

    Example:
        >>> metric = StreamingTopK(np.eye(4, dtype="float32"), k=(1, 2))
        >>> metric.update_state([3, 0], np.array([[0, 0, 0, 9], [2, 3, 0, 0]], "float32"))
        >>> {name: float(value) for name, value in metric.result().items()}
        {'hr@1': 0.5, 'hr@2': 1.0}
    """

    def __init__(
        self,
        catalogue: Any = None,
        *,
        k: Sequence[int] = (1, 5, 10),
        chunk_size: int = 16384,
        name: str = "streaming_top_k",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.k = tuple(sorted(k))
        if not self.k or self.k[0] < 1 or chunk_size < 1:
            raise ValueError(
                f"Each k and chunk_size must be 1 or more, got {tuple(k)} and {chunk_size}."
            )
        self.chunk_size = chunk_size
        # In a function, or Keras would take a variable for the metric's own and set it to zero.
        self._catalogue = lambda: catalogue
        self.hits = self.add_weight(shape=(len(self.k),), initializer="zeros", name="hits")
        self.total = self.add_weight(shape=(), initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        queries = ops.cast(y_pred, "float32")
        if len(queries.shape) == 3:
            queries = queries[:, 0]
        rows = ops.reshape(ops.cast(ops.convert_to_tensor(y_true), "int32"), (-1,))
        weights = ops.ones_like(rows) if sample_weight is None else sample_weight
        weights = ops.reshape(ops.cast(weights, "float32"), (-1,))
        table = self._table(queries)
        known = queries.shape[0]
        # Where their number is unknown, as in `fit`, all come at once: a batch.
        bounds = [None] if known is None else range(0, known, _QUERIES)
        for first in bounds:
            part = slice(None) if first is None else slice(first, first + _QUERIES)
            with _exact_products():
                better = self._count_better(ops.maximum(rows[part], 0), queries[part], table)
            known_row = rows[part] >= 0
            found = ops.stack([ops.logical_and(known_row, better < k) for k in self.k], axis=1)
            found = weights[part][:, None] * ops.cast(found, "float32")
            self.hits.assign_add(ops.sum(found, axis=0))
        self.total.assign_add(ops.sum(weights))

    def result(self):
        return {
            f"hr@{k}": ops.divide_no_nan(self.hits[place], self.total)
            for place, k in enumerate(self.k)
        }

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"k": list(self.k), "chunk_size": self.chunk_size}

    def _table(self, queries):
        catalogue = self._catalogue()
        if catalogue is None:
            raise ValueError(
                "This metric has no catalogue, as configurations do not hold it. Make it anew: "
                "StreamingTopK(catalogue)."
            )
        table = ops.convert_to_tensor(catalogue)
        if keras.backend.backend() == "jax" and isinstance(catalogue, keras.Variable):
            import jax

            if isinstance(queries, jax.core.Tracer) and not isinstance(table, jax.core.Tracer):
                raise ValueError(
                    "On JAX a compiled step would rank by the catalogue's values of now for ever. "
                    "Update the metric in a loop of your own instead of passing it to compile()."
                )
        return table

    def _count_better(self, rows, queries, table):
        """Counts, for each query, the other rows that do not score below its true one."""
        own = ops.cast(ops.take(table, rows, axis=0), "float32")
        score = ops.sum(queries * own, axis=1)
        lengths = ops.sqrt(ops.sum(queries**2, axis=1) * ops.sum(own**2, axis=1))
        least = (score - _ROUNDING * lengths)[:, None]
        better = ops.zeros_like(rows)
        for first in range(0, table.shape[0], self.chunk_size):
            chunk = ops.cast(table[first : first + self.chunk_size], "float32")
            scores = ops.matmul(queries, ops.transpose(chunk))
            numbers = first + ops.arange(chunk.shape[0], dtype="int32")
            other = numbers[None, :] != rows[:, None]
            counted = ops.logical_and(other, ops.logical_not(scores < least))
            better = better + ops.sum(ops.cast(counted, "int32"), axis=1)
        return better


def _exact_products():
    """Keeps JAX from rounding what it multiplies on accelerators."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision("highest")
