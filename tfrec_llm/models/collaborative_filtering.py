"""Users and items by their numbers alone: a dot product, and a network beside it."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.layers.user_embedding import UserEmbedding
from tfrec_llm.training.replicated_training import ReplicatedTraining


@keras.saving.register_keras_serializable(package="tfrec_llm")
class MatrixFactorization(ReplicatedTraining):
    """Gives the probability that a user takes an item: `p = sigmoid(h_u . g_i + b_u + b_i + b)`.

    Well regularised it is as good as networks over the same vectors, and its
    scores can be searched by nearest neighbours.

    Args:
        num_users: Number of user indexes.
        num_items: Number of item indexes.
        emb_dim: Width of the vectors.
        l2: Weight of the squares of the vectors of a batch in the loss.

    Call arguments:
        pair: `(user_data, item_data)`, two integer tensors `[rows]`.

    Returns:
        float32 tensor `[rows, 1]` in 0..1.

    Example:
        >>> model = MatrixFactorization(num_users=10, num_items=20, emb_dim=8)
        >>> model.compile("adam", "binary_crossentropy")
        >>> tuple(model((np.array([1, 2]), np.array([3, 4]))).shape)
        (2, 1)

    Reference:
        Neural Collaborative Filtering vs. Matrix Factorization Revisited,
        https://arxiv.org/abs/2005.09683
    """

    def __init__(
        self, num_users: int, num_items: int, emb_dim: int = 64, *, l2: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.num_users = num_users
        self.num_items = num_items
        self.emb_dim = emb_dim
        self.l2 = l2
        self.user_embedding = UserEmbedding(num_users, emb_dim, name="user_embedding")
        self.item_embedding = ItemEmbedding(num_items, emb_dim, name="item_embedding")
        self.user_bias = UserEmbedding(
            num_users, 1, embeddings_initializer="zeros", name="user_bias"
        )
        self.item_bias = ItemEmbedding(
            num_items, 1, embeddings_initializer="zeros", name="item_bias"
        )

    def build(self, pair_shape=None):
        for table in (self.user_embedding, self.item_embedding, self.user_bias, self.item_bias):
            table.build((None,))
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")
        self.built = True

    def call(self, pair, training=None):
        users, items = pair
        h_u, g_i = self.user_embedding(users), self.item_embedding(items)
        if training and self.l2:
            squares = ops.sum(ops.square(h_u) + ops.square(g_i), axis=-1)
            self.add_loss(self.l2 * ops.mean(squares))
        logit = ops.sum(h_u * g_i, axis=-1, keepdims=True)
        logit = logit + self.user_bias(users) + self.item_bias(items) + self.bias
        return ops.sigmoid(ops.cast(logit, "float32"))

    def compute_output_spec(self, pair, training=None):
        return keras.KerasTensor((*pair[0].shape, 1), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_users": self.num_users,
            "num_items": self.num_items,
            "emb_dim": self.emb_dim,
            "l2": self.l2,
        }


@keras.saving.register_keras_serializable(package="tfrec_llm")
class NeuralCollaborativeFiltering(ReplicatedTraining):
    """Gives the probability that a user takes an item by a product and a network side by side.

    NeuMF: one pair of vectors is multiplied, another one runs through hidden
    layers, and one weight vector reads both.

    Args:
        num_users: Number of user indexes.
        num_items: Number of item indexes.
        emb_dim: Width of the vectors that are multiplied.
        hid_dims: Widths of the hidden layers; the vectors that they read are
            half as wide as the first.
        dropout: Share of the hidden layers dropped in training.

    Call arguments:
        pair: `(user_data, item_data)`, two integer tensors `[rows]`.

    Returns:
        float32 tensor `[rows, 1]` in 0..1.

    Raises:
        ValueError: If there is no hidden layer.

    Example:
        >>> model = NeuralCollaborativeFiltering(num_users=10, num_items=20, emb_dim=8)
        >>> model.compile("adam", "binary_crossentropy")
        >>> tuple(model((np.array([1, 2]), np.array([3, 4]))).shape)
        (2, 1)

    Reference:
        Neural Collaborative Filtering, https://arxiv.org/abs/1708.05031
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        emb_dim: int = 64,
        *,
        hid_dims: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not hid_dims or min(hid_dims) < 2:
            raise ValueError(f"hid_dims must be one width or more, each above 1, got {hid_dims}.")
        self.num_users = num_users
        self.num_items = num_items
        self.emb_dim = emb_dim
        self.hid_dims = tuple(hid_dims)
        self.dropout = dropout
        read = hid_dims[0] // 2
        self.tables = {
            "user_product": UserEmbedding(num_users, emb_dim, name="user_product"),
            "item_product": ItemEmbedding(num_items, emb_dim, name="item_product"),
            "user_network": UserEmbedding(num_users, read, name="user_network"),
            "item_network": ItemEmbedding(num_items, read, name="item_network"),
        }
        self.hidden = [
            keras.layers.Dense(width, activation="relu", name=f"hidden_{number}")
            for number, width in enumerate(hid_dims)
        ]
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.probability = keras.layers.Dense(
            1, activation="sigmoid", dtype="float32", name="probability"
        )

    def build(self, pair_shape=None):
        for table in self.tables.values():
            table.build((None,))
        width = 2 * (self.hid_dims[0] // 2)
        for layer in self.hidden:
            layer.build((None, width))
            width = layer.units
        self.probability.build((None, self.emb_dim + width))
        self.built = True

    def call(self, pair, training=None):
        users, items = pair
        product = self.tables["user_product"](users) * self.tables["item_product"](items)
        vectors = [self.tables["user_network"](users), self.tables["item_network"](items)]
        hidden = ops.concatenate(vectors, axis=-1)
        for layer in self.hidden:
            hidden = self.drop(layer(hidden), training=training)
        return self.probability(ops.concatenate([product, hidden], axis=-1))

    def compute_output_spec(self, pair, training=None):
        return keras.KerasTensor((*pair[0].shape, 1), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_users": self.num_users,
            "num_items": self.num_items,
            "emb_dim": self.emb_dim,
            "hid_dims": list(self.hid_dims),
            "dropout": self.dropout,
        }
