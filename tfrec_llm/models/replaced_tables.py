"""A behaviour model whose items' vectors come from other tables."""

from collections.abc import Callable
from typing import Any


def with_tables(model: Any, table_of: Callable[[Any], Any]) -> Any:
    """Returns a copy of a behaviour model with other layers in place of its item tables.

    The Transformer and what reads kinds of behaviour are copied; the model stays as it is.

    Args:
        model: A `BehaviorModel`.
        table_of: Gives the new layer for an `ItemTable`, whose name it must keep.
    """
    config = model.encoder.get_config()
    tuning = config.pop("tuning")
    encoder = type(model.encoder)(
        **config | {"item_embedding": table_of(model.encoder.item_embedding)}
    )
    encoder.tuning = tuning
    output = None if model.tie_embeddings else table_of(model.output_embedding)
    copy = type(model)(**model.get_config() | {"encoder": encoder, "output_embedding": output})
    copy.build()
    for part in ("transformer", "behavior_embedding"):
        layer = getattr(model.encoder, part)
        if layer is not None:
            getattr(copy.encoder, part).set_weights(layer.get_weights())
    return copy
