"""Pre-training by the next session."""

from typing import Any

import keras

from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.encoder_task import EncoderTask


@keras.saving.register_keras_serializable(package="tfrec_llm")
class NextSessionModel(EncoderTask):
    """Tells whether a session follows another one: `p = sigmoid(w^T tanh(W h))`.

    `h` is the state at the newest behaviour of two sessions that stand behind
    each other, the mask between them. Train it on
    `tfrec_llm.data.next_session_batches`. `compile()` takes binary
    cross-entropy and reports the AUC where nothing else is said; a model that
    guesses stays at .5.

    Args:
        encoder: The `BehaviorEncoder` to train, causal or not.
        hid_dim: Width of the hidden layer; None stands for the encoder's
            `emb_dim`.

    Call arguments:
        inputs: Batch, see `BehaviorEncoder`, with `target_positions`
            `[rows, targets]`, the newest behaviour of each pair; without, a
            row is a pair.

    Returns:
        float32 tensor `[rows, targets]` in 0..1.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = NextSessionModel(encoder)
        >>> model.compile("adam")

    Reference:
        BERT, https://arxiv.org/abs/1810.04805 (next-sentence prediction)
    """

    def __init__(self, encoder: BehaviorEncoder, *, hid_dim: int | None = None, **kwargs: Any):
        super().__init__(encoder, **kwargs)
        self.hid_dim = hid_dim
        self.hidden = keras.layers.Dense(
            hid_dim or encoder.emb_dim, activation="tanh", dtype="float32", name="hidden"
        )
        self.probability = keras.layers.Dense(
            1, activation="sigmoid", dtype="float32", name="probability"
        )

    def build_head(self) -> None:
        self.hidden.build((None, None, self.encoder.emb_dim))
        self.probability.build((None, None, self.hidden.units))

    def head(self, hidden):
        return self.probability(self.hidden(hidden))[..., 0]

    def head_shape(self) -> tuple[int, ...]:
        return ()

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any):
        if not (kwargs.get("metrics") or kwargs.get("weighted_metrics")):
            kwargs["weighted_metrics"] = [keras.metrics.AUC(name="auc")]
        super().compile(optimizer, loss, **kwargs)

    def default_loss(self) -> keras.losses.Loss:
        return keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # A probability a target: Keras takes the mean over the last axis before it weighs.
        return super().compute_loss(x, y[..., None], y_pred[..., None], sample_weight, training)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"hid_dim": self.hid_dim}
