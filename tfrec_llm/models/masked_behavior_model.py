"""Pre-training by masked behaviours."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.data.vocabulary import MASK
from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.behavior_model import BehaviorModel


@keras.saving.register_keras_serializable(package="tfrec_llm")
class MaskedBehaviorModel(BehaviorModel):
    """Predicts masked behaviours from those before and after them.

    Train it on `tfrec_llm.data.masked_batches`. `predict` on padded histories
    appends a mask to each and gives float32 scores `[rows, vocab_size]` of
    what comes next.

    Args:
        encoder: The `BehaviorEncoder` to train; looks both ways unless it
            was made causal.
        **kwargs: Further options of `BehaviorModel`: `tie_embeddings`,
            `similarity`, `temperature`.

    Call arguments: See `BehaviorModel`.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = MaskedBehaviorModel(encoder)
        >>> model.compile("adam", loss=tfrec_llm.losses.CatalogCrossEntropy())

    Reference:
        BERT4Rec, https://arxiv.org/abs/1904.06690
    """

    objective = "masked"

    def __init__(self, encoder: BehaviorEncoder, **kwargs: Any):
        if encoder.causal is None:
            encoder.causal = False
        super().__init__(encoder, **kwargs)

    def asking(self, inputs):
        return ask_behind(inputs)


def ask_behind(inputs):
    """Returns the batch that asks at a mask put behind each row's history.

    Args:
        inputs: Batch of one history a row, padded on either side.
    """
    appended = _append_mask(inputs)
    rows, length = ops.shape(appended["items"])
    last = ops.zeros((rows, 1), dtype="int32") + (length - 1)
    return {**appended, "target_positions": last}


def _append_mask(inputs):
    """Puts the mask behind each row's history, at the last place, as its newest behaviour."""
    appended = {
        "items": _append(inputs["items"], MASK),
        # Padded rows are of one user, so the mask belongs to segment 1.
        "segments": _append(inputs["segments"], 1),
        "positions": _append(inputs["positions"] + 1, 0),
    }
    if "behaviors" in inputs:
        appended["behaviors"] = _append(inputs["behaviors"], 0)
    return appended


def _append(values, last):
    column = ops.full((ops.shape(values)[0], 1), last, dtype=values.dtype)
    return ops.concatenate([values, column], axis=1)
