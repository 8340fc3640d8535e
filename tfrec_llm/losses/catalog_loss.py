"""What the losses over a catalogue share."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.losses.replicas import sum_over_replicas
from tfrec_llm.losses.table_rows import RowTable


class CatalogLoss(keras.losses.Loss):
    """Template of losses that score hidden states against an item table.

    A subclass writes `weighted_sum`. The mean is taken over positions by
    their weights, so positions without a target change nothing. A subclass
    that reads the table by `table_rows` only sets `takes_rows`: its gradient
    can then be that of a few rows.

    Args:
        name: Name of the loss.

    Attributes:
        takes_rows: Whether `weighted_sum` takes a `RowTable`, too.

    Call arguments:
        targets: Integer tensor `[...]`, rows of `table`.
        hidden: Float tensor `[..., emb_dim]`.
        table: Float tensor `[items, emb_dim]`.
        sample_weight: Optional float tensor `[...]`, 0 where a position has
            no target.
        first_item: Rows of `table` before this one are no candidates.

    Returns:
        Float scalar, the weighted mean over positions. On several replicas their sum is the
        mean over all positions of the global batch.
    """

    takes_rows = False

    def __init__(self, *, name: str | None = None, **kwargs: Any):
        kwargs.setdefault("reduction", "sum")
        super().__init__(name=name, **kwargs)

    def __call__(self, targets, hidden, table, sample_weight=None, *, first_item: int = 0):
        targets = ops.cast(targets, "int32")
        weights = ops.ones_like(targets) if sample_weight is None else sample_weight
        weights = ops.reshape(ops.cast(weights, "float32"), (-1,))
        return self.weighted_sum(
            ops.reshape(targets, (-1,)),
            ops.reshape(hidden, (-1, hidden.shape[-1])),
            # The value of a variable: TensorFlow's custom gradients do not take the variable.
            table if isinstance(table, RowTable) else ops.cast(table, table.dtype),
            weights / ops.maximum(sum_over_replicas(ops.sum(weights)), 1e-12),
            first_item,
        )

    def weighted_sum(self, targets, hidden, table, weights, first_item: int):
        """Returns the sum of `weights` times the loss of each position.

        Args:
            targets: int32 tensor `[positions]`.
            hidden: Float tensor `[positions, emb_dim]`.
            table: Float tensor `[items, emb_dim]`.
            weights: float32 tensor `[positions]`.
            first_item: First row of `table` that is a candidate.

        Returns:
            Float scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} must define weighted_sum.")
