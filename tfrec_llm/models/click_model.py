"""The probability that a user clicks what they are shown."""

import keras

from tfrec_llm.models.ranking_model import RankingModel


@keras.saving.register_keras_serializable(package="tfrec_llm")
class ClickModel(RankingModel):
    """Gives the probability of one action, such as a click: `p = sigmoid(w^T [H_u ; G_i])`.

    Arguments are those of `RankingModel`.

    Returns:
        float32 tensor `[rows, targets, 1]` in 0..1.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = ClickModel(encoder)
        >>> model.compile("adam", weighted_metrics=["auc"])

    Reference:
        Deep Interest Network, https://arxiv.org/abs/1706.06978;
        Neural Collaborative Filtering, https://arxiv.org/abs/1708.05031
    """

    def build_tasks(self):
        self.recommendation = self.make_head("recommendation")

    def probabilities(self, h_u, g_i, bias=None, training=None):
        return self.recommendation(h_u, g_i, bias=bias, training=training)
