"""Vectors of users by their index."""

import keras

from tfrec_llm.layers.item_embedding import ItemEmbedding


@keras.saving.register_keras_serializable(package="tfrec_llm")
class UserEmbedding(ItemEmbedding):
    """A trained vector for each user, by its index, its profile or both.

    With the features of profiles `h_u = E[u] + G(features_u)`, as in
    `ItemEmbedding`; a user who is new is known by the profile alone.

    Args:
        vocab_size: Number of user indexes.
        emb_dim: Width of a vector.
        features: A `FeatureLookup` of as many indexes, or None.
        feature_encoder: See `ItemEmbedding`.
        id_dropout: See `ItemEmbedding`.
        embeddings_initializer: Initializer of the table.

    Attributes:
        table: float32 variable `[vocab_size, emb_dim]`: E.
        seen: See `ItemEmbedding`.

    Call arguments:
        users: Integer tensor of any shape, `0 <= users < vocab_size`.

    Returns:
        Float tensor of the shape of `users` with `emb_dim` behind it.

    Raises:
        ValueError: As of `ItemEmbedding`.

    Example:
        >>> user_embedding = UserEmbedding(vocab_size=100, emb_dim=8)
        >>> tuple(user_embedding(keras.ops.array([1, 2])).shape)
        (2, 8)
    """
