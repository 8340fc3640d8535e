"""A training step that is traced once."""

from typing import Any


def build_for_training(model: Any) -> None:
    """Makes what variables a model and its optimizer still lack, before the step is traced.

    A function that makes variables while TensorFlow traces it is traced a second time, and
    tracing takes longer than a small training.

    Args:
        model: A compiled Keras model that can be built without shapes.
    """
    if not model.built:
        model.build()
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
