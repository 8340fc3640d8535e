"""Pre-training by telling histories apart."""

import keras
from keras import ops

from tfrec_llm.losses.contrastive_loss import ContrastiveLoss
from tfrec_llm.losses.replicas import gather_from_replicas, replica_share
from tfrec_llm.models.encoder_task import EncoderTask


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ContrastiveModel(EncoderTask):
    """Brings two views of a history together and views of different ones apart.

    A history is its state at the newest behaviour. Train it on
    `tfrec_llm.data.contrastive_batches`, where every history of a batch is
    seen twice and the others are the negatives. `compile(loss=ContrastiveLoss(
    temperature=...))` sets how sharply they are told apart.

    `predict` on padded histories gives their vectors.

    Args:
        encoder: The `BehaviorEncoder` to train, causal or not.

    Call arguments:
        inputs: Batch, see `BehaviorEncoder`, with `target_positions`
            `[rows, targets]` in training.

    Returns:
        float32 vectors `[rows, targets, emb_dim]` in training, else
        `[rows, emb_dim]`.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = ContrastiveModel(encoder)
        >>> model.compile("adam", loss=tfrec_llm.losses.ContrastiveLoss(temperature=0.2))

    Reference:
        CL4SRec, https://arxiv.org/abs/2010.14395
    """

    def head(self, hidden):
        return ops.cast(hidden, "float32")

    def head_shape(self) -> tuple[int, ...]:
        return (self.encoder.emb_dim,)

    def call(self, inputs, training=None):
        vectors = super().call(inputs, training=training)
        return vectors if "target_positions" in inputs else vectors[:, 0]

    def default_loss(self) -> keras.losses.Loss:
        return ContrastiveLoss()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # The loss sees all histories of a batch at once; Keras would take its mean of rows.
        y, y_pred, sample_weight = gather_from_replicas((y, y_pred, sample_weight))
        return replica_share(self.loss(y, y_pred, sample_weight))

    def compute_output_spec(self, inputs, training=None):
        spec = super().compute_output_spec(inputs)
        if "target_positions" not in inputs:
            spec = keras.KerasTensor((spec.shape[0], self.encoder.emb_dim), dtype="float32")
        return spec
