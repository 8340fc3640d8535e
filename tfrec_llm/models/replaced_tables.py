"""Models whose items' vectors come from other tables."""

from collections.abc import Callable
from typing import Any

import keras


def with_tables(model: Any, table_of: Callable[[Any], Any]) -> Any:
    """Returns a copy of a behaviour model with other layers in place of its item tables.

    The Transformer and what reads kinds of behaviour are copied; the model stays as it is.

    Args:
        model: A `BehaviorModel`.
        table_of: Gives the new layer for an `ItemTable`, whose name it must keep.
    """
    output = None if model.tie_embeddings else table_of(model.output_embedding)
    encoder = _encoder_with_table(model.encoder, table_of)
    copy = type(model)(**model.get_config() | {"encoder": encoder, "output_embedding": output})
    copy.build()
    return copy


def ranking_with_table(model: Any, table_of: Callable[[Any], Any]) -> Any:
    """Returns a copy of a ranking model with another layer in place of its encoder's item table.

    Args:
        model: A built `RankingModel`.
        table_of: As in `with_tables`.
    """
    config = model.get_config()
    config = {
        name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name != "encoder"
    }
    copy = type(model)(encoder=_encoder_with_table(model.encoder, table_of), **config)
    copy.build()
    copy.newcomer.assign(model.newcomer)
    for old, new in zip(model.layers, copy.layers, strict=True):
        if old is not model.encoder:
            new.set_weights(old.get_weights())
    return copy


def _encoder_with_table(encoder: Any, table_of: Callable[[Any], Any]) -> Any:
    config = encoder.get_config()
    tuning = config.pop("tuning")
    copy = type(encoder)(**config | {"item_embedding": table_of(encoder.item_embedding)})
    copy.tuning = tuning
    copy.build()
    for part in ("transformer", "behavior_embedding"):
        layer = getattr(encoder, part)
        if layer is not None:
            getattr(copy, part).set_weights(layer.get_weights())
    return copy
