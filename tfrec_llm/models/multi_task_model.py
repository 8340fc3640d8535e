"""Several actions at once."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.mixture_of_experts import MixtureOfExperts
from tfrec_llm.layers.recommendation import logit_layer
from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.ranking_model import RankingModel


@keras.saving.register_keras_serializable(package="tfrec_llm")
class MultiTaskModel(RankingModel):
    """Gives the probabilities of several actions, such as click, cart and purchase.

    Experts read user, item and their product; every task mixes the experts in
    its own way.

    Args:
        encoder: See `RankingModel`.
        tasks: Names of the actions, which are those of the labels.
        num_experts: Number of experts.
        **options: See `RankingModel`; `product` and `num_crosses` have no use.

    Returns:
        A dict of float32 tensors `[rows, targets, 1]` by task.

    Raises:
        ValueError: If there is no task, or two have one name.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = MultiTaskModel(encoder, tasks=("click", "cart", "purchase"))
        >>> model.compile("adam")

    Reference:
        Multi-gate Mixture-of-Experts, https://doi.org/10.1145/3219819.3220007
    """

    def __init__(
        self,
        encoder: BehaviorEncoder,
        *,
        tasks: Sequence[str] = ("click", "conversion"),
        num_experts: int = 4,
        **options: Any,
    ):
        super().__init__(encoder, **options)
        self.tasks = tuple(tasks)
        self.num_experts = num_experts
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be names, each of them once, got {self.tasks}.")

    def build_tasks(self):
        width = 3 * self.encoder.emb_dim
        self.experts = MixtureOfExperts(
            len(self.tasks), self.num_experts, self.hid_dim, name="experts"
        )
        self.experts.build((None, None, width))
        self.drop = keras.layers.Dropout(self.dropout, name="drop")
        self.last = []
        for task in self.tasks:
            layer = logit_layer(f"probability_of_{task}", **self.start_of(task))
            layer.build((None, None, self.hid_dim))
            self.last.append(layer)

    @property
    def num_logits(self) -> int:
        return len(self.tasks)

    def probabilities(self, h_u, g_i, bias=None, training=None):
        mixed = self.experts(ops.concatenate([h_u, g_i, h_u * g_i], axis=-1))
        mixed = self.drop(mixed, training=training)
        logits = [layer(mixed[..., number, :]) for number, layer in enumerate(self.last)]
        if bias is not None:
            logits = [logit + bias[..., n : n + 1] for n, logit in enumerate(logits)]
        return dict(zip(self.tasks, map(ops.sigmoid, logits), strict=True))

    def compute_output_spec(self, inputs, training=None):
        spec = super().compute_output_spec(inputs)
        return dict.fromkeys(self.tasks, spec)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "tasks": list(self.tasks),
            "num_experts": self.num_experts,
        }
