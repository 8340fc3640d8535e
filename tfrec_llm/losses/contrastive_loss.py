"""Cross-entropy of telling one's other view from the views of others."""

from typing import Any

import keras
from keras import ops

# Far below any score, and finite, so that differences of two such are no NaN.
_NEVER = -1e30


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ContrastiveLoss(keras.losses.Loss):
    """Softmax cross-entropy in which a vector is to find its other views among all of a batch.

    The score of two vectors is the cosine of their angle over the temperature
    (InfoNCE, NT-Xent). Vectors without another view of their own, and those
    of id 0, have no loss, and the latter are no negatives either.

    Args:
        temperature: Scores are divided by it.
        name: Name of the loss.

    Call arguments:
        ids: Integer tensor `[...]`, equal for the views of one thing, 0 where
            there is none.
        vectors: Float tensor `[..., emb_dim]`.
        sample_weight: Optional float tensor `[...]`.

    Returns:
        Float scalar, the weighted mean over the views.

    Raises:
        ValueError: If `temperature` is not positive.

    Example:
        >>> vectors = keras.ops.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> loss = ContrastiveLoss(temperature=1.0)
        >>> round(float(loss(keras.ops.array([1, 1, 2, 2]), vectors)), 4)  # log(e + 2) - 1
        0.5514
        >>> round(float(loss(keras.ops.array([1, 1, 0, 0]), vectors)), 4)
        0.0

    Reference:
        SimCLR, https://arxiv.org/abs/2002.05709;
        CL4SRec, https://arxiv.org/abs/2010.14395
    """

    def __init__(self, *, temperature: float = 0.1, name: str = "contrastive_loss", **kwargs: Any):
        kwargs.setdefault("reduction", "sum")
        super().__init__(name=name, **kwargs)
        if not temperature > 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature = temperature

    def __call__(self, ids, vectors, sample_weight=None):
        ids = ops.reshape(ops.cast(ids, "int32"), (-1,))
        vectors = ops.cast(ops.reshape(vectors, (-1, vectors.shape[-1])), "float32")
        vectors = ops.normalize(vectors, axis=-1)
        scores = ops.matmul(vectors, ops.transpose(vectors)) / self.temperature
        numbers = ops.arange(ops.shape(ids)[0])
        itself = numbers[:, None] == numbers[None, :]
        other = ops.logical_and(ids[None, :] > 0, ops.logical_not(itself))
        own = ops.cast(ops.logical_and(other, ids[:, None] == ids[None, :]), "float32")
        count = ops.sum(own, axis=1)
        positive = ops.sum(own * scores, axis=1) / ops.maximum(count, 1.0)
        entropy = ops.logsumexp(ops.where(other, scores, _NEVER), axis=1) - positive
        weights = ops.cast(count > 0, "float32")
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        return ops.sum(weights * entropy) / ops.maximum(ops.sum(weights), 1e-12)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"temperature": self.temperature}
