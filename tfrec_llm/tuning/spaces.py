"""What a search may choose from.

A space is a function: it asks KerasTuner's `HyperParameters` for values and returns arguments.
Write your own in the same way, or change what one of these returns.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras_tuner


def next_space(hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
    """Returns arguments of a `Recommender` that predicts next behaviours.

    Args:
        hp: What the search chooses. Its defaults are those of `Recommender`.

    Returns:
        Arguments by name: sizes, blocks, positions, dropout, steps, averaging.

    Example:
        >>> import keras_tuner
        >>> next_space(keras_tuner.HyperParameters())["dropout"]
        0.2
    """
    return {"objective": "next", **_encoder(hp), **_training(hp), **_similarity(hp)}


def masked_space(hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
    """Returns arguments of a `Recommender` that guesses masked behaviours.

    Args:
        hp: What the search chooses.

    Returns:
        As of `next_space`, and the shares that the objective masks.

    Example:
        >>> import keras_tuner
        >>> masked_space(keras_tuner.HyperParameters())["objective_options"]
        {'mask_rate': 0.2, 'newest_rate': 0.2}
    """
    masked = {
        "mask_rate": hp.Float("mask_rate", 0.1, 0.6, step=0.1, default=0.2),
        "newest_rate": hp.Float("newest_rate", 0.0, 0.6, step=0.1, default=0.2),
    }
    return {
        "objective": "masked",
        "objective_options": masked,
        **_encoder(hp),
        **_training(hp),
        **_similarity(hp),
    }


def ranking_space(hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
    """Returns arguments of a ranking model and of its training, for `RankingHyperModel`.

    Args:
        hp: What the search chooses.

    Returns:
        Arguments of `RankingModel` by name, and `learning_rate`, `decay` and
        `label_smoothing` of the training.

    Example:
        >>> import keras_tuner
        >>> sorted(ranking_space(keras_tuner.HyperParameters()))[:3]
        ['decay', 'dropout', 'hid_dim']
    """
    return {
        "interest": hp.Choice("interest", ["attention", "mean"], default="attention"),
        "hid_dim": hp.Choice("hid_dim", [32, 64, 128, 256], default=128),
        "num_crosses": hp.Int("num_crosses", 0, 2, default=0),
        "dropout": hp.Float("dropout", 0.0, 0.5, step=0.1, default=0.1),
        "learning_rate": hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3),
        # How much less each layer of the encoder moves than the one above it.
        "decay": hp.Choice("decay", [0.5, 0.7, 0.9, 1.0], default=0.9),
        "label_smoothing": hp.Choice("label_smoothing", [0.0, 0.05, 0.1], default=0.0),
    }


def _encoder(hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
    return {
        "emb_dim": hp.Choice("emb_dim", [32, 64, 128], default=64),
        "num_layers": hp.Int("num_layers", 1, 3, default=2),
        "num_heads": hp.Choice("num_heads", [1, 2, 4], default=2),
        "block": hp.Choice("block", ["pre_norm", "post_norm", "gated"], default="pre_norm"),
        "position_encoding": hp.Choice(
            "position_encoding", ["learned", "rotary"], default="learned"
        ),
        "dropout": hp.Float("dropout", 0.1, 0.6, step=0.1, default=0.2),
        "attention_dropout": hp.Choice("attention_dropout", [0.0, 0.3, 0.5], default=0.0),
    }


def _training(hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
    return {
        "learning_rate": hp.Float("learning_rate", 3e-4, 3e-3, sampling="log", default=1e-3),
        "batch_size": hp.Choice("batch_size", [16, 32, 64, 128], default=64),
        "weight_averaging": hp.Choice("weight_averaging", [0.0, 0.7, 0.9], default=0.0),
    }


def _similarity(hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
    similarity = hp.Choice("similarity", ["dot", "cosine"], default="dot")
    if similarity == "dot":
        return {"similarity": "dot"}
    with hp.conditional_scope("similarity", ["cosine"]):
        temperature = hp.Float("temperature", 0.03, 0.2, sampling="log", default=0.07)
    return {"similarity": "cosine", "temperature": temperature}
