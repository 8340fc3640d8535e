"""Vectors of users by their index."""

import keras

from tfrec_llm.layers.item_embedding import ItemEmbedding


@keras.saving.register_keras_serializable(package="tfrec_llm")
class UserEmbedding(ItemEmbedding):
    """A trained vector for each user: `h_u = E[u]`.

    Args:
        vocab_size: Number of user indexes.
        emb_dim: Width of a vector.
        embeddings_initializer: Initializer of the table.

    Call arguments:
        users: Integer tensor of any shape, `0 <= users < vocab_size`.

    Returns:
        Float tensor of the shape of `users` with `emb_dim` behind it.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> user_embedding = UserEmbedding(vocab_size=100, emb_dim=8)
        >>> tuple(user_embedding(keras.ops.array([1, 2])).shape)
        (2, 8)
    """
