"""What pre-training already says of a candidate."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.layers.item_contents import ItemContents


@keras.saving.register_keras_serializable(package="tfrec_llm")
class Affinity(keras.layers.Layer):
    """How much likelier than others an encoder holds a candidate after a history, as logits.

    An encoder that was pre-trained on next behaviours gives every item a share,
    the softmax of state times vector. A candidate's share, or that of all items
    it is about, over what an item has on average, is a first guess of what
    fine-tuning learns: its logarithm times a trained weight that starts at one,
    plus a trained shift.

    Args:
        num_logits: Number of logits, each with a weight and a shift of its own.

    Call arguments:
        h_u: Float tensor `[rows, targets, emb_dim]`, the encoder's states.
        candidates: Integer tensor `[rows, targets]`; without `contents`, indexes of items.
        item_embedding: Layer that gives items' vectors by index, the encoder's.
        vocab_size: Number of item indexes.
        contents: `ItemContents` of candidates that are about several items.

    Returns:
        float32 tensor `[rows, targets, num_logits]`.

    Raises:
        ValueError: If `num_logits` is not positive.

    Example:
        >>> items = tfrec_llm.ItemEmbedding(100, 8)
        >>> states, candidates = keras.ops.ones((2, 1, 8)), keras.ops.array([[3], [4]])
        >>> tuple(Affinity()(states, candidates, item_embedding=items, vocab_size=100).shape)
        (2, 1, 1)
    """

    def __init__(self, num_logits: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if num_logits < 1:
            raise ValueError(f"num_logits must be positive, got {num_logits}.")
        self.num_logits = num_logits

    def build(self, h_u_shape=None):
        self.weight = self.add_weight(shape=(self.num_logits,), initializer="ones", name="weight")
        self.shift = self.add_weight(shape=(self.num_logits,), initializer="zeros", name="shift")
        super().build(h_u_shape)

    def call(
        self, h_u, candidates, *, item_embedding, vocab_size, contents: ItemContents | None = None
    ):
        # Reserved indexes are no items: they have no share.
        items = ops.arange(NUM_RESERVED, vocab_size, dtype="int32")
        vectors = ops.cast(item_embedding(items), "float32")
        scores = ops.matmul(ops.cast(h_u, "float32"), ops.transpose(vectors))
        shares = ops.softmax(scores, axis=-1)
        if contents is not None:
            about = ops.take(contents.about[:, NUM_RESERVED:], candidates, axis=0)
            share = ops.sum(shares * about, axis=-1, keepdims=True)
        else:
            place = ops.maximum(ops.cast(candidates, "int32") - NUM_RESERVED, 0)[..., None]
            share = ops.take_along_axis(shares, place, axis=-1)
        # As small as it gets, so that nothing is infinitely unlikely.
        lift = ops.log(ops.maximum(share * (vocab_size - NUM_RESERVED), 1e-4))
        return lift * ops.cast(self.weight, "float32") + ops.cast(self.shift, "float32")

    def compute_output_shape(self, h_u_shape, candidates_shape=None, **kwargs):
        return (*h_u_shape[:-1], self.num_logits)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_logits": self.num_logits}
