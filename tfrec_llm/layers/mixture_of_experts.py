"""Experts that several tasks share."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfrec_llm")
class MixtureOfExperts(keras.layers.Layer):
    """Gives each task its own mixture of shared experts: `sum_e softmax(W_t x)_e expert_e(x)`.

    Args:
        num_tasks: Number of tasks.
        num_experts: Number of experts, each `relu(W x + b)`.
        hid_dim: Width of an expert's output.

    Call arguments:
        x: Float tensor `[..., width]`.

    Returns:
        Float tensor `[..., num_tasks, hid_dim]`.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> mixture = MixtureOfExperts(num_tasks=2, num_experts=3, hid_dim=8)
        >>> tuple(mixture(keras.ops.ones((4, 5))).shape)
        (4, 2, 8)

    Reference:
        Multi-gate Mixture-of-Experts, https://doi.org/10.1145/3219819.3220007
    """

    def __init__(self, num_tasks: int, num_experts: int = 4, hid_dim: int = 64, **kwargs: Any):
        super().__init__(**kwargs)
        if min(num_tasks, num_experts, hid_dim) < 1:
            raise ValueError(
                "num_tasks, num_experts and hid_dim must be positive, got "
                f"{num_tasks}, {num_experts} and {hid_dim}."
            )
        self.num_tasks = num_tasks
        self.num_experts = num_experts
        self.hid_dim = hid_dim

    def build(self, x_shape):
        self.experts = keras.layers.Dense(
            self.num_experts * self.hid_dim,
            activation="relu",
            dtype=self.dtype_policy,
            name="experts",
        )
        self.gates = keras.layers.Dense(
            self.num_tasks * self.num_experts, dtype=self.dtype_policy, name="gates"
        )
        self.experts.build(x_shape)
        self.gates.build(x_shape)
        super().build(x_shape)

    def call(self, x):
        def apart(values, first, second):
            return ops.reshape(values, (*ops.shape(x)[:-1], first, second))

        gates = ops.softmax(apart(self.gates(x), self.num_tasks, self.num_experts), axis=-1)
        return ops.matmul(gates, apart(self.experts(x), self.num_experts, self.hid_dim))

    def compute_output_shape(self, x_shape):
        return (*x_shape[:-1], self.num_tasks, self.hid_dim)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_tasks": self.num_tasks,
            "num_experts": self.num_experts,
            "hid_dim": self.hid_dim,
        }
