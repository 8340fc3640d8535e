"""Training to answer alike, whatever dropout and augmentation leave of an input."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.losses.replicas import sum_over_replicas
from tfrec_llm.training.wrapped_model import WrappedModel


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ConsistencyTraining(WrappedModel):
    """Trains a model on labelled examples and to answer unlabelled ones consistently.

    An unlabelled batch passes the model twice, under other dropout each time and, where the
    batches hold another view of it, augmented. The mean squared difference of the two outputs is
    added to the loss; the pass on the plain view is what the other one is to reach, and gets no
    gradient. The weight rises by `exp(-5 (1 - t)^2)` over the first steps, in which outputs are
    not worth following yet.

    `fit` takes `tfrec_llm.data.ConsistencyBatches`; `evaluate`, `predict` and `save` work as on
    the model inside, which is the one to use afterwards: `consistent.model`.

    Args:
        model: The Keras model to train; outputs probabilities, one tensor or a dict of them.
        weight: Weight of the difference, once it has risen.
        ramp_steps: Training steps in which the weight rises; 0 for none.

    Call arguments: Those of the model inside, or a batch of `ConsistencyBatches`, of which the
        labelled part is used.

    Raises:
        ValueError: If `weight` or `ramp_steps` is negative; in training, if a batch has no
            unlabelled part.
        NotImplementedError: On other backends than TensorFlow and JAX.

    Example:
        >>> model = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dense(1, "sigmoid")])
        >>> consistent = ConsistencyTraining(model, ramp_steps=100)
        >>> consistent.compile("adam", "binary_crossentropy")
        >>> rng = np.random.default_rng(0)
        >>> batch = {"labelled": rng.random((4, 3)), "unlabelled": rng.random((8, 3))}
        >>> loss = consistent.train_on_batch(batch, np.array([[0.0], [1.0], [1.0], [0.0]]))
        >>> tuple(consistent.predict(rng.random((5, 3)), verbose=0).shape)
        (5, 1)

    Reference:
        Temporal Ensembling (the Pi-model), https://arxiv.org/abs/1610.02242;
        Unsupervised Data Augmentation, https://arxiv.org/abs/1904.12848
    """

    def __init__(
        self, model: keras.Model, *, weight: float = 1.0, ramp_steps: int = 0, **kwargs: Any
    ):
        if not weight >= 0.0 or ramp_steps < 0:
            raise ValueError(
                f"weight and ramp_steps must be 0 or more, got {weight} and {ramp_steps}."
            )
        super().__init__(model, **kwargs)
        self.weight = weight
        self.ramp_steps = ramp_steps
        self.seen_steps = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="seen_steps",
        )

    def inputs_of(self, x):
        return x["labelled"] if isinstance(x, dict) and "labelled" in x else x

    def extra_loss(self, x, y, y_pred, sample_weight):
        if not isinstance(x, dict) or "unlabelled" not in x:
            raise ValueError(
                "A training batch has no unlabelled part. Pass fit() the batches that "
                "tfrec_llm.data.ConsistencyBatches makes of labelled and unlabelled ones."
            )
        plain = x["unlabelled"]
        wanted = self.model(plain, training=True)
        given = self.model(x.get("other_view", plain), training=True)
        weights = x.get("unlabelled_weight")
        differences = [
            _mean_square(ops.stop_gradient(to), of, weights)
            for to, of in zip(keras.tree.flatten(wanted), keras.tree.flatten(given), strict=True)
        ]
        return self._ramp() * sum(differences)

    def _ramp(self):
        """Returns the weight at this step, and counts the step."""
        if not self.ramp_steps:
            return self.weight
        done = ops.minimum(ops.cast(self.seen_steps, "float32") / self.ramp_steps, 1.0)
        self.seen_steps.assign_add(1)
        return self.weight * ops.exp(-5.0 * ops.square(1.0 - done))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"weight": self.weight, "ramp_steps": self.ramp_steps}


def _mean_square(wanted, given, weights):
    square = ops.square(ops.cast(given, "float32") - ops.cast(wanted, "float32"))
    weights = ops.ones_like(square) if weights is None else ops.cast(weights, "float32")
    while len(weights.shape) < len(square.shape):
        weights = weights[..., None]
    total = ops.sum(ops.broadcast_to(weights, ops.shape(square)))
    return ops.sum(square * weights) / ops.maximum(sum_over_replicas(total), 1e-7)
