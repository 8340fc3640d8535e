"""Pre-training by the next behaviour."""

from typing import Any

import keras

from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.behavior_model import BehaviorModel


@keras.saving.register_keras_serializable(package="tfrec_llm")
class NextBehaviorModel(BehaviorModel):
    """Predicts every behaviour from those before it.

    Train it on `tfrec_llm.data.next_batches`. `predict` on padded histories
    gives float32 scores `[rows, vocab_size]` of what comes next.

    Args:
        encoder: The `BehaviorEncoder` to train; becomes causal.
        **kwargs: Further options of `BehaviorModel`: `tie_embeddings`,
            `similarity`, `temperature`.

    Call arguments: See `BehaviorModel`.

    Raises:
        ValueError: If the encoder was made with `causal=False`: it would see
            the very behaviours it is to predict.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = NextBehaviorModel(encoder)
        >>> model.compile("adam", loss=tfrec_llm.losses.CatalogCrossEntropy())

    Reference:
        SASRec, https://arxiv.org/abs/1808.09781
    """

    objective = "next"

    def __init__(self, encoder: BehaviorEncoder, **kwargs: Any):
        if encoder.causal is False:
            raise ValueError(
                "This encoder looks both ways (causal=False), so it would see the behaviours that "
                "NextBehaviorModel has it predict. Make it with causal=True or causal=None."
            )
        encoder.causal = True
        super().__init__(encoder, **kwargs)
