"""Gradients from the weights that a step began with."""

import keras


def keep_update_order() -> None:
    """Keeps TensorFlow from updating a weight before its own step has read it.

    TensorFlow 2.21 drops, when it optimises a graph's dependencies, some that
    make an update wait for the reads of the same step. Small models then
    compute, now and then, a gradient from weights that are updated already,
    and seeded runs do not repeat. The option is of the whole process; leaving
    that optimisation out cost no measurable time in a training step.

    Models of this library call it when they are compiled. Call it yourself
    before you train another Keras model with this library's layers.

    Example:
        >>> keep_update_order()
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"dependency_optimization": False})
