"""What the models of clicks and conversions share."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from tfrec_llm.data.impression_batches import RankingBatches
from tfrec_llm.data.vocabulary import MASK, PADDING
from tfrec_llm.layers.affinity import Affinity
from tfrec_llm.layers.calibration import Calibration
from tfrec_llm.layers.feature_embedding import FeatureEmbedding
from tfrec_llm.layers.interest_attention import InterestAttention
from tfrec_llm.layers.isotonic_calibration import IsotonicCalibration
from tfrec_llm.layers.item_contents import ItemContents
from tfrec_llm.layers.normalization import normalization
from tfrec_llm.layers.recommendation import Recommendation
from tfrec_llm.layers.temperature_calibration import TemperatureCalibration
from tfrec_llm.models.behavior_encoder import BehaviorEncoder, hidden_at
from tfrec_llm.models.encoder_task import EncoderTask

INTERESTS = (None, "mean", "attention")
CALIBRATIONS = ("temperature", "isotonic")
_LAYERS = (
    "encoder",
    "candidate_embedding",
    "contents",
    "user_embedding",
    "context",
    "calibration",
)


class RankingModel(EncoderTask):
    """Template of models that tell what users will do with the items they are shown.

    The user is the encoder's state after the behaviours before the impression,
    to which go, each where it is given: the part of the history that speaks
    for the candidate, the user's profile, and the context of the impression.
    The item is its vector. A subclass turns both into probabilities.

    Train it on `tfrec_llm.data.ranking_batches`; `fit`, `evaluate` and
    `predict` are Keras' own but that `predict` on such batches gives one
    probability an impression, in the order of the impressions.

    Args:
        encoder: The `BehaviorEncoder`, pre-trained or new.
        candidate_embedding: Layer that gives the vectors of the items shown,
            `emb_dim` wide, by their index, such as an `ItemEmbedding` of
            features or an `ItemEncoder`; None for the encoder's own.
        contents: `ItemContents` of candidates that are about several items,
            such as campaigns; to their vectors goes the mean of those of the
            items.
        user_embedding: Layer that gives the vectors of users by the index of
            their profile, such as a `UserEmbedding` of features; None for
            none. Batches then hold `profiles`.
        context: Layer that gives a vector for every feature of the
            impressions, a `FeatureEmbedding`; None for none. Batches then
            hold `context_NAME`.
        wide: Whether the context's features also lead straight to the logit, by
            a linear map of each: what is nearly linear, such as counts, then
            takes few labels.
        affinity: Whether the candidate's share in what the encoder expects next
            leads straight to the logit, see `Affinity`; for an encoder that was
            pre-trained on next behaviours, and candidates that are its items or
            have `contents`. It looks at the whole catalogue of the encoder for
            every impression.
        base_rate: Probability that an untrained model gives, such as the share of
            positive labels; a dict by head (`click`, `conversion_given_click`)
            or task where there are several. Few labels then need not teach it.
        interest: How the history is looked at from the candidate:
            `"attention"` (`InterestAttention`), `"mean"` of the items'
            vectors, or None for not at all.
        hid_dim: Width of the head's hidden layer; None for four times
            `emb_dim`.
        product: See `Recommendation`.
        num_crosses: See `Recommendation`.
        dropout: Share of the head's hidden layer dropped in training.
        calibration: Layer of `tfrec_llm.layers` that makes the probabilities
            true, such as a `PriorCorrection`, or a dict of them by task; see
            `calibrate`. Training leaves it out.

    Call arguments:
        inputs: Batch, see `RankingBatches`.

    Raises:
        ValueError: If `interest` has an unknown name, or `wide` has no
            `context`.

    Reference:
        Wide & Deep, https://arxiv.org/abs/1606.07792
    """

    def __init__(
        self,
        encoder: BehaviorEncoder,
        *,
        candidate_embedding: keras.Layer | None = None,
        contents: ItemContents | None = None,
        user_embedding: keras.Layer | None = None,
        context: keras.Layer | None = None,
        wide: bool = False,
        affinity: bool = False,
        base_rate: float | dict[str, float] = 0.5,
        interest: str | None = "attention",
        hid_dim: int | None = None,
        product: bool = True,
        num_crosses: int = 0,
        dropout: float = 0.0,
        calibration: Calibration | dict[str, Calibration] | None = None,
        **kwargs: Any,
    ):
        if interest not in INTERESTS:
            raise ValueError(f"interest must be one of {INTERESTS}, got {interest!r}.")
        if wide and context is None:
            raise ValueError("wide=True needs a context, whose features it reads.")
        super().__init__(encoder, **kwargs)
        if encoder.causal is None:
            encoder.causal = True
        self.candidate_embedding = candidate_embedding
        self.contents = contents
        self.user_embedding = user_embedding
        self.context: Any = context
        self.wide = wide
        self.affinity = affinity
        self.base_rate = base_rate
        self.interest = interest
        self.hid_dim = 4 * encoder.emb_dim if hid_dim is None else hid_dim
        self.product = product
        self.num_crosses = num_crosses
        self.dropout = dropout
        self.calibration: Any = calibration

    @property
    def item_layer(self):
        """The layer that gives the vectors of the items shown."""
        if self.candidate_embedding is not None:
            return self.candidate_embedding
        return self.encoder.item_embedding

    def build_head(self):
        width = self.encoder.emb_dim
        vectors = (None, None, width)
        self.item_norm = normalization(self, "item_norm")
        self.item_norm.build(vectors)
        if not self.item_layer.built:
            self.item_layer.build((None, None))
        # A user without a history has a vector of their own.
        self.newcomer = self.add_weight(shape=(width,), initializer="zeros", name="newcomer")
        mixed = 0
        if self.interest is not None:
            mixed += width + 2
            self.interest_norm = normalization(self, "interest_norm")
            self.interest_norm.build(vectors)
        if self.interest == "attention":
            self.attention = InterestAttention(name="attention")
            self.attention.build(vectors)
        if self.user_embedding is not None:
            mixed += width
            if not self.user_embedding.built:
                self.user_embedding.build((None, None))
            self.profile_norm = normalization(self, "profile_norm")
            self.profile_norm.build(vectors)
        if self.context is not None:
            mixed += len(self.context.specs) * width
            if not self.context.built:
                self.context.build()
        if mixed:
            # What is known besides the history starts small beside it.
            small = keras.initializers.TruncatedNormal(stddev=0.02)
            self.mix = keras.layers.Dense(width, kernel_initializer=small, name="mix")
            self.mix.build((None, None, mixed))
        if self.wide:
            self.wide_context = FeatureEmbedding(
                self.context.specs, self.num_logits, dtype="float32", name="wide_context"
            )
            self.wide_context.build()
        if self.affinity:
            self.affinity_layer = Affinity(self.num_logits, name="affinity")
            self.affinity_layer.build(vectors)
        for layer in _calibrations(self.calibration):
            if not layer.built:
                layer.build()
        self.build_tasks()

    def build_tasks(self) -> None:
        """Makes and builds the layers that turn user and item into probabilities."""
        raise NotImplementedError(f"{type(self).__name__} must define build_tasks.")

    @property
    def num_logits(self) -> int:
        """Number of logits that `probabilities` makes, which `bias` is as wide as."""
        return 1

    def probabilities(self, h_u, g_i, bias=None, training=None):
        """Returns probabilities `[rows, targets, 1]`, by task where there are several.

        Args:
            h_u: Float tensor `[rows, targets, emb_dim]`, the users.
            g_i: Float tensor of the same shape, the items shown.
            bias: Float tensor `[rows, targets, num_logits]` that is added to the
                logits; None for nothing.
            training: Whether dropout is at work.
        """
        raise NotImplementedError(f"{type(self).__name__} must define probabilities.")

    def make_head(self, name: str) -> Recommendation:
        """Returns a built head of this model's options."""
        head = Recommendation(
            self.encoder.emb_dim,
            self.hid_dim,
            product=self.product,
            num_crosses=self.num_crosses,
            dropout=self.dropout,
            **self.start_of(name),
            name=name,
        )
        head.build((None, None, self.encoder.emb_dim))
        return head

    def start_of(self, name: str) -> dict[str, Any]:
        """Returns what the logit of a head or task starts from, see `Recommendation`."""
        rates = self.base_rate
        rate = rates.get(name, 0.5) if isinstance(rates, dict) else rates
        return {"zero_start": self.wide or self.affinity, "base_rate": rate}

    def default_loss(self):
        # Places without an impression weigh nothing and must not count in the mean.
        return keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")

    def call(self, inputs, training=None):
        known = ops.cast(inputs["history_lengths"] > 0, "float32")[..., None]
        g_i = ops.cast(self.item_layer(inputs["candidates"]), "float32")
        if self.contents is not None:
            g_i = g_i + self.contents(
                inputs["candidates"], item_embedding=self.encoder.item_embedding
            )
        g_i = self.item_norm(g_i)
        hidden = self.encoder(inputs, training=training)
        h_u = ops.cast(hidden_at(hidden, inputs["target_positions"]), "float32")
        biases = []
        if self.affinity:
            biases.append(known * self.affinity_of(h_u, inputs["candidates"]))
        h_u = known * h_u + (1.0 - known) * ops.cast(self.newcomer, "float32")
        vectors = []
        if self.interest is not None:
            vectors.extend(self.interest_in(g_i, inputs))
        if self.user_embedding is not None:
            profile = self.user_embedding(inputs["profiles"], training=training)
            vectors.append(self.profile_norm(ops.cast(profile, "float32")))
        if self.context is not None:
            features = {spec.name: inputs[f"context_{spec.name}"] for spec in self.context.specs}
            tokens = ops.cast(self.context(features), "float32")
            vectors.extend(ops.unstack(tokens, len(self.context.specs), axis=-2))
            if self.wide:
                biases.append(ops.sum(self.wide_context(features), axis=-2))
        if vectors:
            h_u = h_u + self.mix(ops.concatenate(vectors, axis=-1))
        bias = sum(biases) if biases else None
        probabilities = self.probabilities(h_u, g_i, bias, training=training)
        # Weights learn from what they give themselves.
        if training or self.calibration is None:
            return probabilities
        return self.calibrated(probabilities)

    def affinity_of(self, h_u, candidates):
        """Returns what pre-training says of the candidates, `[rows, targets, num_logits]`."""
        return self.affinity_layer(
            h_u,
            candidates,
            item_embedding=self.encoder.item_embedding,
            vocab_size=self.encoder.vocab_size,
            contents=self.contents,
        )

    @property
    def deep_layers(self) -> list[keras.Layer]:
        """Layers beside the encoder that do not lead straight to the logit; see `freeze_deep`."""
        others = [self.encoder, *_calibrations(self.calibration)]
        others += [self.wide_context] if self.wide else []
        others += [self.affinity_layer] if self.affinity else []
        return [layer for layer in self.layers if not any(layer is other for other in others)]

    def calibrated(self, probabilities):
        """Returns probabilities behind the calibration, which is there."""
        if not isinstance(probabilities, dict):
            return self.calibration(probabilities)
        return probabilities | {
            task: layer(probabilities[task]) for task, layer in self.calibration.items()
        }

    def interest_in(self, g_i, inputs):
        """Returns what of each history speaks for the candidates.

        Args:
            g_i: Float tensor `[rows, targets, emb_dim]`, the candidates.
            inputs: The batch.

        Returns:
            Float tensors `[rows, targets, emb_dim]`, the interest, and
            `[rows, targets, 2]`: the logarithms of 1 plus the number of
            behaviours read, and of those that were the candidate's own.
        """
        items, places = inputs["items"], ops.cast(inputs["target_positions"], "int32")
        own = ops.take_along_axis(inputs["segments"], places, axis=1)[..., None]
        mask = inputs["segments"][:, None] == own
        older = ops.arange(ops.shape(items)[1], dtype="int32") <= places[..., None]
        is_behavior = ops.logical_and(items != PADDING, items != MASK)[:, None]
        known = (inputs["history_lengths"] > 0)[..., None]
        for further in (older, is_behavior, known):
            mask = ops.logical_and(mask, further)
        if self.contents is not None:
            same = self.contents.holds(inputs["candidates"], items)
        elif self.candidate_embedding is None:
            same = ops.cast(inputs["candidates"][..., None] == items[:, None], "float32")
        else:
            same = ops.zeros(ops.shape(mask), "float32")
        seen = ops.cast(mask, "float32")
        counts = ops.stack([ops.sum(seen, -1), ops.sum(seen * same, -1)], axis=-1)
        behaviors = ops.cast(self.encoder.item_embedding(items), "float32")
        if self.interest == "attention":
            interest = self.attention(g_i, behaviors, mask, same)
        else:
            interest = ops.matmul(seen / ops.maximum(counts[..., :1], 1.0), behaviors)
        return self.interest_norm(interest), ops.log1p(counts)

    def fit(self, x=None, *args, **kwargs):
        self._check_histories(x)
        self._check_histories(kwargs.get("validation_data"))
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        self._check_histories(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Returns probabilities; of `RankingBatches` one an impression, in their order.

        Args:
            x: `RankingBatches`, or what `keras.Model.predict` takes.
            *args: As in `keras.Model.predict`.
            **kwargs: As in `keras.Model.predict`.

        Returns:
            float32 `[n]`, or a dict of them by task; for other inputs what
            `keras.Model.predict` returns.
        """
        if not isinstance(x, RankingBatches):
            return super().predict(x, *args, **kwargs)
        self._check_histories(x)
        found: dict[str, np.ndarray] = {}
        for index in range(len(x)):
            batch = x[index] if x.labels is None else x[index][0]
            asked = x.impressions(index)
            output = self.predict_on_batch(batch)
            for task, values in (output if isinstance(output, dict) else {"": output}).items():
                into = found.setdefault(task, np.zeros(len(x.candidates), np.float32))
                into[asked[asked >= 0]] = np.asarray(values)[asked >= 0, 0]
        return found.get("", found)

    def calibrate(self, x: RankingBatches, *, method: str = "temperature") -> Self:
        """Makes the probabilities as high as held-out labels are frequent.

        The calibration becomes part of the model: it is saved, exported and served. Training goes
        on without it; calibrate again after that.

        Args:
            x: Impressions with labels, on which the model was not trained.
            method: `"temperature"` (a temperature and a shift of the logits), or `"isotonic"`
                (any rising curve; it takes a thousand clicks and more).

        Returns:
            Itself.

        Raises:
            ValueError: If `method` has an unknown name or `x` has no labels.
            DataError: If all labels are of one class, or the probabilities point the wrong way.
        """
        if method not in CALIBRATIONS:
            raise ValueError(f"method must be one of {CALIBRATIONS}, got {method!r}.")
        if x.labels is None:
            raise ValueError("The batches have no labels to calibrate on.")

        def fitted(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
            if method == "isotonic":
                return IsotonicCalibration.fit(labels, probabilities, weights=x.weights)
            return TemperatureCalibration.fit(labels, probabilities, weights=x.weights, shift=True)

        kept = self.calibration
        self.set_calibration(None)
        try:
            found = self.predict(x)
            if isinstance(found, dict):
                kept = {task: fitted(labels, found[task]) for task, labels in x.labels.items()}
            else:
                kept = fitted(x.labels, found)
        finally:
            self.set_calibration(kept)
        return self

    def set_calibration(self, calibration: Calibration | dict[str, Calibration] | None) -> None:
        """Puts another calibration behind the probabilities, or none.

        Args:
            calibration: A layer, or a dict of them by task.
        """
        for layer in _calibrations(calibration):
            if not layer.built:
                layer.build()
        # Keras locks what was built, as its own enable_lora has it, too.
        self._tracker.unlock()
        for layer in _calibrations(self.calibration):
            if layer in self._layers:
                self._layers.remove(layer)
        self.calibration = calibration
        self._tracker.lock()
        self.test_function = self.predict_function = None

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes the model for serving; it takes batches as `RankingBatches` makes them.

        `tfrec_llm.serving.export_ranking_model` writes one that takes raw ids.

        Args:
            filepath: Folder or file, as in `keras.Model.export`.
            format: As in `keras.Model.export`.
            **kwargs: As in `keras.Model.export`.
        """
        if not self.built:
            self.build()
        kwargs.setdefault("input_signature", [self.batch_spec()])
        super().export(filepath, format=format, **kwargs)

    def batch_spec(self) -> dict[str, keras.InputSpec]:
        """Returns shapes and dtypes of the arrays of a batch, by name."""
        names = ["items", "segments", "positions"]
        names += ["target_positions", "history_lengths", "candidates"]
        if self.encoder.num_behaviors:
            names.append("behaviors")
        if self.user_embedding is not None:
            names.append("profiles")
        specs = {name: keras.InputSpec(shape=(None, None), dtype="int32") for name in names}
        for feature in () if self.context is None else self.context.specs:
            dtype = "int32" if feature.is_index else "float32"
            shape = (None, None, *feature.shape)
            specs[f"context_{feature.name}"] = keras.InputSpec(shape=shape, dtype=dtype)
        return specs

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((*inputs["candidates"].shape, 1), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        layers = {name: getattr(self, name) for name in _LAYERS[1:]}
        return super().get_config() | {
            **{name: keras.saving.serialize_keras_object(layer) for name, layer in layers.items()},
            "wide": self.wide,
            "affinity": self.affinity,
            "base_rate": self.base_rate,
            "interest": self.interest,
            "hid_dim": self.hid_dim,
            "product": self.product,
            "num_crosses": self.num_crosses,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        layers = {
            name: keras.saving.deserialize_keras_object(
                config.get(name), custom_objects=custom_objects
            )
            for name in _LAYERS
        }
        return cls(**config | layers)

    def _check_histories(self, data: Any) -> None:
        if not isinstance(data, RankingBatches):
            return
        if data.histories == "shared" and not self.encoder.causal:
            raise ValueError(
                "The encoder looks both ways, so impressions at different times cannot share a "
                'reading: make the batches with histories="masked", or "own".'
            )
        if data.histories == "masked" and self.encoder.causal:
            raise ValueError(
                "The encoder is causal and was not trained to fill masks: make the batches with "
                'histories="shared" for training, and "own" for probabilities.'
            )


def _calibrations(calibration: Any) -> list[Calibration]:
    if calibration is None:
        return []
    return list(calibration.values()) if isinstance(calibration, dict) else [calibration]
