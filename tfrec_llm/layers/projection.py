"""The dense maps inside a block."""

from typing import Any

import keras
from keras import ops


def projection(owner: Any, units: int, name: str) -> "Projection":
    """Returns a dense map with the initializer and the dtype policy of the layer it is part of.

    Args:
        owner: A layer with a `kernel_initializer`.
        units: Width of the output.
        name: Name of the map.
    """
    return Projection(
        units,
        # Each kernel draws its own values: a shared initializer object repeats them.
        kernel_initializer=owner.kernel_initializer.clone(),
        dtype=owner.dtype_policy,
        name=name,
    )


@keras.saving.register_keras_serializable(package="tfrec_llm")
class Projection(keras.layers.Dense):
    """A dense map whose LoRA can be saved and merged.

    Keras saves the sum of kernel and LoRA and loads it beside a LoRA of zeros, through which no
    gradient flows, so that training could not go on. Here the two stay apart.

    Args:
        **kwargs: Of `keras.layers.Dense`.
    """

    def save_own_variables(self, store):
        if not self._keeps_lora_apart():
            super().save_own_variables(store)
            return
        for name, variable in self._own_variables().items():
            store[name] = variable

    def load_own_variables(self, store):
        if not self._keeps_lora_apart():
            super().load_own_variables(store)
            return
        for name, variable in self._own_variables().items():
            if name in store.keys():  # noqa: SIM118, a store need not be a dict
                variable.assign(store[name])
            elif name == "lora_kernel_b":
                # Saved without LoRA: it adds nothing to what is loaded.
                variable.assign(ops.zeros(variable.shape))

    def merge_lora(self) -> None:
        """Adds the LoRA to the kernel and takes it away; outputs stay as they are."""
        self._kernel.assign(self.kernel)
        # Functions that were compiled before still add what these hold.
        self.lora_kernel_b.assign(ops.zeros(self.lora_kernel_b.shape))
        for variable in (self.lora_kernel_a, self.lora_kernel_b):
            self._untrack_variable(variable)
        self.lora_enabled = False
        self.lora_rank = self.lora_alpha = None
        self._kernel.trainable = True

    def _keeps_lora_apart(self) -> bool:
        return self.built and self.lora_enabled and self.quantization_mode is None

    def _own_variables(self) -> dict[str, Any]:
        found = {"0": self._kernel, "1": self.bias}
        lora = {"lora_kernel_a": self.lora_kernel_a, "lora_kernel_b": self.lora_kernel_b}
        return {name: each for name, each in (found | lora).items() if each is not None}
