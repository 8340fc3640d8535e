"""Ranking models for KerasTuner."""

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner

from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.click_model import ClickModel
from tfrec_llm.models.ranking_model import RankingModel
from tfrec_llm.optimizers.layerwise_decay import LayerwiseDecay
from tfrec_llm.training.fine_tuning import copy_tuning, variable_depths
from tfrec_llm.tuning.spaces import ranking_space


class RankingHyperModel(keras_tuner.HyperModel):
    """Fine-tunes a pre-trained encoder anew in every trial of any KerasTuner tuner.

    Every trial begins with a copy of the encoder, so no trial sees what
    another learned. Models are compiled with `auc` as a weighted metric.

    Args:
        encoder: The pre-trained `BehaviorEncoder`; it stays as it is.
        model: Class of the ranking model of one label.
        space: Function of `keras_tuner.HyperParameters` that returns arguments
            of `model`, and `learning_rate`, `decay` (1 for the same rate in
            all layers) and `label_smoothing`.
        layers: Function that returns new layers for a trial by argument, such
            as `{"user_embedding": ...}`; None for none.

    Example:
        >>> import keras_tuner
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=50, emb_dim=8)
        >>> tuner = keras_tuner.RandomSearch(
        ...     RankingHyperModel(encoder),
        ...     objective=keras_tuner.Objective("val_auc", direction="max"),
        ...     max_trials=3,
        ...     directory="tuning",
        ...     project_name="doctest",
        ...     overwrite=True,
        ... )
        >>> tuner.oracle.get_space().get("interest")
        'attention'
    """

    def __init__(
        self,
        encoder: BehaviorEncoder,
        *,
        model: type[RankingModel] = ClickModel,
        space: Callable[[Any], dict[str, Any]] = ranking_space,
        layers: Callable[[], dict[str, keras.Layer]] | None = None,
    ):
        super().__init__()
        if not encoder.built:
            encoder.build()
        self.encoder = encoder
        self.model = model
        self.space = space
        self.layers = layers

    def build(self, hp: Any) -> RankingModel:
        """Returns a new, compiled model."""
        chosen = dict(self.space(hp))
        rate = chosen.pop("learning_rate", 1e-3)
        decay = chosen.pop("decay", 1.0)
        smoothing = chosen.pop("label_smoothing", 0.0)
        encoder = BehaviorEncoder.from_config(self.encoder.get_config())
        encoder.build()
        copy_tuning(self.encoder, encoder)
        encoder.set_weights(self.encoder.get_weights())
        model = self.model(encoder, **chosen, **(self.layers() if self.layers else {}))
        optimizer = keras.optimizers.Adam(rate)
        if decay < 1.0:
            optimizer = LayerwiseDecay(optimizer, depths=variable_depths(encoder), decay=decay)
        model.build()
        model.compile(
            optimizer,
            loss=keras.losses.BinaryCrossentropy(label_smoothing=smoothing),
            weighted_metrics=["auc"],
        )
        return model
