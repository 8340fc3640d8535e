"""What the optimizers share that work around another one."""

from typing import Any

import keras


class WrappingOptimizer(keras.optimizers.Optimizer):
    """Template of optimizers around another: what is not theirs is the inner one's.

    Learning rate, clipping, weight decay, steps and state are those of the inner optimizer.

    Args:
        inner_optimizer: The optimizer that takes the steps, or its name.
        name: Name of the optimizer.
    """

    def __init__(self, inner_optimizer: Any, *, name: str | None = None):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = keras.optimizers.get(inner_optimizer)

    @property
    def takes_sparse_rows(self) -> bool:
        """Whether the inner optimizer touches only the rows that are used."""
        return getattr(self.inner_optimizer, "takes_sparse_rows", False)

    def build(self, variables):
        if self.built:
            return
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner_optimizer = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**config | {"inner_optimizer": inner_optimizer})
