"""Training against the worst small change of the embeddings."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.losses.replicas import sum_over_replicas
from tfrec_llm.training.wrapped_model import WrappedModel, gradients_of


@keras.saving.register_keras_serializable(package="tfrec_llm")
class AdversarialTraining(WrappedModel):
    """Trains a model to be right where its embeddings are moved against it, too.

    `loss(E) + weight * loss(E + epsilon * g / |g|)`, where `g` is the gradient of the loss to a
    row of an embedding table, the direction in which the loss grows fastest. What is learned
    then depends less on the last digits of embeddings, and ranks better what is rare.

    `fit`, `evaluate`, `predict` and `save` work as on the model inside, which is the one to use
    afterwards: `adversarial.model`. A training step calls the model three times, forwards and
    backwards; gradients of tables are dense.

    Args:
        model: The Keras model to train, with `ItemEmbedding`, `UserEmbedding` or
            `keras.layers.Embedding` layers at any depth.
        epsilon: Length by which a row is moved, in the units of the embeddings.
        weight: Weight of the loss at the moved embeddings.
        embeddings: Names of the layers whose tables are moved; None for all.

    Call arguments: Those of the model inside.

    Raises:
        ValueError: If `epsilon` is not positive or `weight` is negative; when training begins, if
            there is no such embedding.
        NotImplementedError: On other backends than TensorFlow and JAX.

    Example:
        >>> users, items = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
        >>> score = keras.layers.Dot(1)(
        ...     [keras.layers.Embedding(9, 4)(users), keras.layers.Embedding(9, 4)(items)]
        ... )
        >>> model = keras.Model([users, items], keras.ops.sigmoid(score))
        >>> adversarial = AdversarialTraining(model, epsilon=0.1)
        >>> adversarial.compile("adam", "binary_crossentropy")
        >>> pairs, clicked = [np.array([1, 2]), np.array([3, 4])], np.array([0.0, 1.0])
        >>> _ = adversarial.fit(pairs, clicked, verbose=0)
        >>> tuple(model.predict(pairs, verbose=0).shape)
        (2, 1)

    Reference:
        Adversarial Personalized Ranking, https://arxiv.org/abs/1808.03908
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        epsilon: float = 0.5,
        weight: float = 1.0,
        embeddings: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        if not epsilon > 0.0 or not weight >= 0.0:
            raise ValueError(
                f"epsilon must be positive and weight 0 or more, got {epsilon} and {weight}."
            )
        super().__init__(model, **kwargs)
        self.epsilon = epsilon
        self.weight = weight
        self.embeddings = None if embeddings is None else list(embeddings)

    def extra_loss(self, x, y, y_pred, sample_weight):
        tables = self.tables()
        values = [ops.convert_to_tensor(table) for table in tables]

        def moved_loss(moves):
            moved = [
                (table, value + move)
                for table, value, move in zip(tables, values, moves, strict=True)
            ]
            with self.without_traces(moved):
                outputs = self(x, training=True)
                return self.data_loss(x, y, outputs, sample_weight)

        slopes = gradients_of(moved_loss, [ops.zeros_like(value) for value in values])
        moves = [self.epsilon * _unit_rows(sum_over_replicas(slope)) for slope in slopes]
        return self.weight * moved_loss([ops.stop_gradient(move) for move in moves])

    def tables(self) -> list[Any]:
        """Returns the tables that are moved, float variables `[rows, emb_dim]`."""
        found = {}
        for layer in self.model._flatten_layers():
            if isinstance(layer, ItemEmbedding):
                found[id(layer.table)] = layer.name, layer.table
            elif isinstance(layer, keras.layers.Embedding):
                found[id(layer.embeddings)] = layer.name, layer.embeddings
        names = {name for name, _ in found.values()}
        asked = names if self.embeddings is None else set(self.embeddings)
        if not asked or asked - names:
            raise ValueError(
                f"The model has no embedding layers named {sorted(asked - names)}, but "
                f"{sorted(names)}. AdversarialTraining moves the tables of ItemEmbedding, "
                "UserEmbedding and keras.layers.Embedding."
            )
        return [table for name, table in found.values() if name in asked]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "epsilon": self.epsilon,
            "weight": self.weight,
            "embeddings": self.embeddings,
        }


def _unit_rows(slope):
    """Returns the rows at length one; rows of zeros stay zeros."""
    square = ops.sum(ops.square(slope), axis=-1, keepdims=True)
    safe = ops.where(square > 0.0, square, 1.0)
    return slope / ops.sqrt(safe)
