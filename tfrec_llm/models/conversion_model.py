"""Clicks and conversions over all impressions."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.models.ranking_model import RankingModel


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ConversionModel(RankingModel):
    """Gives the probabilities of a click and of a conversion, both of all impressions.

    A conversion needs a click: `p(conversion) = p(click) p(conversion | click)`.
    A model of conversions alone would be trained on clicked impressions, and
    judge all others by them; here both probabilities are trained on every
    impression, on labels `click` and `conversion`, and the one in between is
    never trained by itself.

    Args:
        encoder: See `RankingModel`.
        **options: See `RankingModel`.

    Returns:
        A dict of float32 tensors `[rows, targets, 1]`: `click`, `conversion` and
        `conversion_given_click`, which has no label of its own.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = ConversionModel(encoder)
        >>> model.compile("adam")

    Reference:
        Entire Space Multi-Task Model, https://arxiv.org/abs/1804.07931
    """

    def build_tasks(self):
        self.click = self.make_head("click")
        self.conversion_given_click = self.make_head("conversion_given_click")

    @property
    def num_logits(self) -> int:
        return 2

    def probabilities(self, h_u, g_i, bias=None, training=None):
        biases = (None, None) if bias is None else (bias[..., :1], bias[..., 1:])
        click = self.click(h_u, g_i, bias=biases[0], training=training)
        given_click = self.conversion_given_click(h_u, g_i, bias=biases[1], training=training)
        return {
            "click": click,
            "conversion": click * given_click,
            "conversion_given_click": given_click,
        }

    def calibrated(self, probabilities):
        # Each curve is fitted by itself; a conversion still needs its click.
        found = super().calibrated(probabilities)
        conversion = ops.minimum(found["conversion"], found["click"])
        given_click = conversion / ops.maximum(found["click"], keras.config.epsilon())
        return found | {"conversion": conversion, "conversion_given_click": given_click}

    def default_loss(self) -> Any:
        loss = super().default_loss()
        return {"click": loss, "conversion": loss, "conversion_given_click": None}

    def compute_output_spec(self, inputs, training=None):
        spec = super().compute_output_spec(inputs)
        return dict.fromkeys(("click", "conversion", "conversion_given_click"), spec)
