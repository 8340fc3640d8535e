"""Candidates that are about several items: campaigns, bundles, shelves."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ItemContents(keras.layers.Layer):
    """Knows which items each candidate is about, and gives the mean of their vectors.

    Args:
        num_candidates: Number of candidate indexes.
        vocab_size: Number of item indexes.
        candidates: int `[pairs]`, a candidate's index.
        items: int `[pairs]`, index of an item that it is about. A pair counts
            once, however often it is given. None for both where weights are
            loaded.

    Call arguments:
        candidates: Integer tensor `[...]`.
        item_embedding: Layer that gives items' vectors by index, such as the
            encoder's.

    Returns:
        Float tensor `[..., emb_dim]`, zero for a candidate that is about
        nothing.

    Raises:
        ValueError: If the pairs do not fit together or lie outside the
            indexes.

    Example:
        >>> contents = ItemContents(2, 10, candidates=[0, 0, 1], items=[3, 4, 5])
        >>> contents.holds(keras.ops.array([[0, 1]]), keras.ops.array([[3, 5, 6]])).numpy().tolist()
        [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """

    def __init__(
        self,
        num_candidates: int,
        vocab_size: int,
        *,
        candidates: Any = None,
        items: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_candidates = num_candidates
        self.vocab_size = vocab_size
        about = np.zeros((num_candidates, vocab_size), np.float32)
        if candidates is not None:
            candidates, items = np.asarray(candidates), np.asarray(items)
            if candidates.shape != items.shape or candidates.ndim != 1:
                raise ValueError(
                    "candidates and items must be as long as one another, got the shapes "
                    f"{candidates.shape} and {items.shape}."
                )
            for name, values, size in (
                ("candidates", candidates, num_candidates),
                ("items", items, vocab_size),
            ):
                if values.size and not 0 <= values.min() <= values.max() < size:
                    raise ValueError(
                        f"{name} lie in {values.min()}..{values.max()}, not in 0..{size - 1}."
                    )
            about[candidates, items] = 1.0
        self.about = self.add_weight(
            shape=about.shape,
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(about, dtype),
            trainable=False,
            autocast=False,
            name="about",
        )
        self.built = True

    def call(self, candidates, item_embedding):
        vectors = ops.cast(item_embedding(ops.arange(self.vocab_size, dtype="int32")), "float32")
        shares = self.about / ops.maximum(ops.sum(self.about, axis=-1, keepdims=True), 1.0)
        return ops.take(ops.matmul(shares, vectors), candidates, axis=0)

    def holds(self, candidates, items):
        """Returns which items the candidates are about.

        Args:
            candidates: Integer tensor `[rows, targets]`.
            items: Integer tensor `[rows, length]`.

        Returns:
            float32 tensor `[rows, targets, length]`, 1.0 where it is.
        """
        flat = ops.reshape(self.about, (-1,))
        places = ops.cast(candidates, "int32")[..., None] * self.vocab_size
        return ops.take(flat, places + ops.cast(items, "int32")[:, None], axis=0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_candidates": self.num_candidates,
            "vocab_size": self.vocab_size,
        }
