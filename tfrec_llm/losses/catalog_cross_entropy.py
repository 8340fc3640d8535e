"""Cross-entropy over a whole catalogue, in chunks of positions."""

import itertools
from typing import Any

import keras
from keras import ops

from tfrec_llm.losses.catalog_loss import CatalogLoss


@keras.saving.register_keras_serializable(package="tfrec_llm")
class CatalogCrossEntropy(CatalogLoss):
    """Softmax cross-entropy over all items: `-log softmax(h E^T)[target]`.

    The logits of one chunk of positions live at a time: its losses and at
    once its gradients are computed and the logits let go. Memory grows with
    `chunk_size` x items instead of positions x items, and the backward pass
    multiplies nothing again.

    Args:
        chunk_size: Positions a chunk. Where the number of positions is not
            known when the step is traced, as in `fit`, `num_chunks` decides.
        num_chunks: Number of chunks where the number of positions is unknown.

    Call arguments: See `CatalogLoss`.

    Example:
        >>> loss = CatalogCrossEntropy()
        >>> hidden, table = keras.ops.zeros((4, 8)), keras.ops.zeros((100, 8))
        >>> round(float(loss(keras.ops.arange(4), hidden, table)), 3)  # log(100)
        4.605

    Reference:
        Cut Your Losses in Large-Vocabulary Language Models,
        https://arxiv.org/abs/2411.09009
    """

    def __init__(
        self,
        *,
        chunk_size: int = 1024,
        num_chunks: int = 16,
        name: str = "catalog_cross_entropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if chunk_size < 1 or num_chunks < 1:
            raise ValueError(
                f"chunk_size and num_chunks must be positive, got {chunk_size} and {num_chunks}."
            )
        self.chunk_size = chunk_size
        self.num_chunks = num_chunks

    def weighted_sum(self, targets, hidden, table, weights, first_item):
        if first_item:
            table = table[first_item:]
            # A target that is no candidate must weigh nothing; it is only kept in range.
            targets = ops.maximum(targets - first_item, 0)
        known = hidden.shape[0]
        chunks = self.num_chunks if known is None else max(1, -(-known // self.chunk_size))
        positions = ops.shape(hidden)[0]
        bounds = [positions * index // chunks for index in range(chunks + 1)]

        @ops.custom_gradient
        def chunked(hidden, table):
            # Its gradient is computed here: an eager tape that watched on would keep all logits.
            hidden, table = ops.stop_gradient(hidden), ops.stop_gradient(table)
            work = table if table.dtype == hidden.dtype else ops.cast(table, hidden.dtype)
            transposed = ops.transpose(work)
            loss, hidden_parts, table_gradient = 0.0, [], 0.0
            for start, stop in itertools.pairwise(bounds):
                part, weight, target = hidden[start:stop], weights[start:stop], targets[start:stop]
                part = _after(loss, table_gradient, part)
                logits = ops.matmul(part, transposed)
                # One fused operation in the precision of the products; the logarithm of its
                # denominator follows from the largest logit and that one's share.
                shares = ops.softmax(logits, axis=-1)
                top = ops.cast(ops.max(logits, axis=-1), "float32")
                top_share = ops.cast(ops.max(shares, axis=-1), "float32")
                hit = ops.squeeze(ops.take_along_axis(logits, target[:, None], axis=-1), -1)
                entropy = top - ops.log(top_share) - ops.cast(hit, "float32")
                loss = loss + ops.sum(weight * entropy)
                # Weights scale the narrow sides of both products, not all shares.
                weight = ops.cast(weight, hidden.dtype)[:, None]
                hidden_parts.append(weight * ops.matmul(shares, work))
                scaled = weight * part
                table_gradient = table_gradient + ops.cast(
                    ops.matmul(ops.transpose(shares), scaled), "float32"
                )
            pull = ops.cast(weights, hidden.dtype)[:, None]
            hidden_gradient = ops.concatenate(hidden_parts, axis=0)
            hidden_gradient = hidden_gradient - pull * ops.take(work, targets, axis=0)
            table_gradient = table_gradient - ops.segment_sum(
                ops.cast(pull * hidden, "float32"), targets, num_segments=table.shape[0]
            )

            def gradient(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                return (
                    ops.cast(upstream, hidden.dtype) * hidden_gradient,
                    ops.cast(upstream * table_gradient, table.dtype),
                )

            return loss, gradient

        return chunked(hidden, table)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "chunk_size": self.chunk_size,
            "num_chunks": self.num_chunks,
        }


def _after(loss, table_gradient, part):
    """Returns `part`, on JAX as a result of what comes before it.

    XLA else computes independent chunks side by side, with all their logits in
    memory. TensorFlow takes them one by one.
    """
    if keras.backend.backend() != "jax":
        return part
    return part + ops.cast(0.0 * (loss + ops.sum(table_gradient)), part.dtype)
