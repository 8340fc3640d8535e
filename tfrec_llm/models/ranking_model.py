"""What the models of clicks and conversions share."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.data.impression_batches import RankingBatches
from tfrec_llm.data.vocabulary import MASK, PADDING
from tfrec_llm.layers.interest_attention import InterestAttention
from tfrec_llm.layers.item_contents import ItemContents
from tfrec_llm.layers.normalization import normalization
from tfrec_llm.layers.recommendation import Recommendation
from tfrec_llm.models.behavior_encoder import BehaviorEncoder, hidden_at
from tfrec_llm.models.encoder_task import EncoderTask

INTERESTS = (None, "mean", "attention")
_LAYERS = ("encoder", "candidate_embedding", "contents", "user_embedding", "context")


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
        interest: How the history is looked at from the candidate:
            `"attention"` (`InterestAttention`), `"mean"` of the items'
            vectors, or None for not at all.
        hid_dim: Width of the head's hidden layer; None for four times
            `emb_dim`.
        product: See `Recommendation`.
        num_crosses: See `Recommendation`.
        dropout: Share of the head's hidden layer dropped in training.

    Call arguments:
        inputs: Batch, see `RankingBatches`.

    Raises:
        ValueError: If `interest` has an unknown name.
    """

    def __init__(
        self,
        encoder: BehaviorEncoder,
        *,
        candidate_embedding: keras.Layer | None = None,
        contents: ItemContents | None = None,
        user_embedding: keras.Layer | None = None,
        context: keras.Layer | None = None,
        interest: str | None = "attention",
        hid_dim: int | None = None,
        product: bool = True,
        num_crosses: int = 0,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        if interest not in INTERESTS:
            raise ValueError(f"interest must be one of {INTERESTS}, got {interest!r}.")
        super().__init__(encoder, **kwargs)
        if encoder.causal is None:
            encoder.causal = True
        self.candidate_embedding = candidate_embedding
        self.contents = contents
        self.user_embedding = user_embedding
        self.context = context
        self.interest = interest
        self.hid_dim = 4 * encoder.emb_dim if hid_dim is None else hid_dim
        self.product = product
        self.num_crosses = num_crosses
        self.dropout = dropout

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
        self.build_tasks()

    def build_tasks(self) -> None:
        """Makes and builds the layers that turn user and item into probabilities."""
        raise NotImplementedError(f"{type(self).__name__} must define build_tasks.")

    def probabilities(self, h_u, g_i, training=None):
        """Returns probabilities `[rows, targets, 1]`, by task where there are several.

        Args:
            h_u: Float tensor `[rows, targets, emb_dim]`, the users.
            g_i: Float tensor of the same shape, the items shown.
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
            name=name,
        )
        head.build((None, None, self.encoder.emb_dim))
        return head

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
        if vectors:
            h_u = h_u + self.mix(ops.concatenate(vectors, axis=-1))
        return self.probabilities(h_u, g_i, training=training)

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

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((*inputs["candidates"].shape, 1), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        layers = {name: getattr(self, name) for name in _LAYERS[1:]}
        return super().get_config() | {
            **{name: keras.saving.serialize_keras_object(layer) for name, layer in layers.items()},
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
