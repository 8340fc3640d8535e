"""What the pre-training models share."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.losses.catalog_cross_entropy import CatalogCrossEntropy
from tfrec_llm.losses.catalog_loss import CatalogLoss
from tfrec_llm.losses.replicas import replica_share
from tfrec_llm.losses.table_rows import (
    RowTable,
    sparse_row_gradients,
    sparse_row_gradients_active,
)
from tfrec_llm.models.behavior_encoder import BehaviorEncoder, hidden_at
from tfrec_llm.training.memory import keep_freed_memory
from tfrec_llm.training.replicated_training import ReplicatedTraining
from tfrec_llm.training.tracing import build_for_training
from tfrec_llm.training.update_order import keep_update_order

SIMILARITIES = ("dot", "cosine")

# A score that no item can make up for; float16 holds it, too.
_NEVER = -1e4


class BehaviorModel(ReplicatedTraining):
    """Template of models that predict items from histories.

    With `target_positions` in the batch, as training batches have them, a
    call gives the hidden states there, and the loss scores these against the
    item table in chunks. Without, it gives the scores of the whole catalogue
    for the behaviour after each row's newest: what `predict` returns.

    Args:
        encoder: The `BehaviorEncoder` to train.
        tie_embeddings: Whether items are scored by the vectors they are read
            with. False trains a second table.
        similarity: `"dot"`, or `"cosine"`: hidden states and item vectors are
            scaled to length one, so that an item's popularity cannot hide in
            the length of its vector.
        temperature: What similarities are divided by; with `"cosine"` about
            0.05 to 0.1.
        output_embedding: Layer of the second table in place of an
            `ItemEmbedding`, such as a `CompressedTable`; only without
            `tie_embeddings`.

    Call arguments:
        inputs: Batch, see `BehaviorEncoder`, with `target_positions`
            `[rows, targets]` in training.

    Returns:
        Float tensor `[rows, targets, emb_dim]` or float32 `[rows, vocab_size]`.
    """

    def __init__(
        self,
        encoder: BehaviorEncoder,
        *,
        tie_embeddings: bool = True,
        similarity: str = "dot",
        temperature: float = 1.0,
        output_embedding: keras.Layer | None = None,
        **kwargs: Any,
    ):
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {SIMILARITIES}, got {similarity!r}.")
        if not temperature > 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if tie_embeddings and output_embedding is not None:
            raise ValueError("An output_embedding needs tie_embeddings=False.")
        # The encoder may compute in half precision; scores stay in float32, or many items tie.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.encoder = encoder
        self.tie_embeddings = tie_embeddings
        self.similarity = similarity
        self.temperature = temperature
        self.output_embedding = output_embedding
        if not tie_embeddings and output_embedding is None:
            if getattr(encoder.item_embedding, "features", None) is not None:
                raise ValueError(
                    "The encoder reads items by features, so the second table needs them, too: "
                    "pass output_embedding=ItemEmbedding(..., features=FeatureLookup(...))."
                )
            self.output_embedding = ItemEmbedding(
                encoder.vocab_size, encoder.emb_dim, dtype="float32", name="output_embedding"
            )
        self.loss_seed = keras.random.SeedGenerator(seed=0)

    @property
    def table(self):
        """Float variable `[vocab_size, emb_dim]`: the vectors of ids that items are scored by.

        Where items have features, these are not in it; `item_vectors` are whole.
        """
        return self.output_layer.table

    def vectors_of(self, items):
        """Returns `item_vectors` of some items, an integer tensor of any shape."""
        return self._scored_by(self.output_layer.rows(items))

    @property
    def output_layer(self):
        """The layer whose table items are scored by."""
        return self.encoder.item_embedding if self.tie_embeddings else self.output_embedding

    @property
    def item_vectors(self):
        """Float tensor `[vocab_size, emb_dim]`: what items are scored by.

        That is their vectors, with what their features add, at length one where that is the way.
        """
        return self._scored_by(self.output_layer.all_rows())

    def build(self, inputs_shape=None):
        if not self.encoder.built:
            self.encoder.build(inputs_shape)
        if not self.output_layer.built:
            self.output_layer.build((None,))
        self.built = True

    def compile(self, optimizer: Any = "adam", loss: CatalogLoss | None = None, **kwargs: Any):
        """Configures training; takes what `keras.Model.compile` takes.

        With an optimizer of rows, such as `tfrec_llm.optimizers.LazyAdam`, and
        a loss that reads rows, such as `SampledCrossEntropy`, a step on
        TensorFlow computes nothing of the item table's size.

        Args:
            optimizer: Keras optimizer or its name.
            loss: A `CatalogLoss`; None stands for `CatalogCrossEntropy()`.
            **kwargs: As in `keras.Model.compile`.

        Raises:
            ValueError: If the loss is no `CatalogLoss`, or metrics are given:
                they would see hidden states. Use
                `tfrec_llm.evaluation.RankingEvaluation` for ranking metrics.
        """
        loss = CatalogCrossEntropy() if loss is None else loss
        if not isinstance(loss, CatalogLoss):
            raise ValueError(
                f"The loss must be a CatalogLoss such as CatalogCrossEntropy(), got {loss!r}: "
                "the model hands it hidden states and the item table."
            )
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise ValueError(
                "Keras metrics would see hidden states here. Pass the callback "
                "tfrec_llm.evaluation.RankingEvaluation to fit() for ranking metrics."
            )
        keep_update_order()
        keep_freed_memory()
        if self.encoder.dtype_policy.name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.get(optimizer))
        optimizer = keras.optimizers.get(optimizer)
        self._sparse_rows = loss.takes_rows and getattr(optimizer, "takes_sparse_rows", False)
        if self._sparse_rows and kwargs.get("jit_compile", "auto") == "auto":
            kwargs["jit_compile"] = False  # XLA cannot find the rows that are used
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        if hasattr(loss, "seed_generator"):
            # From the model's own, which is part of its state, a loss draws anew at every step on
            # every backend; a built model takes up no further state.
            self.loss_seed.state.assign(loss.seed_generator.state)
            loss.seed_generator = self.loss_seed

    def compile_from_config(self, config):
        # Keras skips this where compile() is overridden, and a loaded model could not train on.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        build_for_training(self)
        return super().make_train_function(force)

    def train_step(self, *args, **kwargs):
        with sparse_row_gradients(self._sparse_rows):
            return super().train_step(*args, **kwargs)

    def call(self, inputs, training=None):
        asked = inputs if "target_positions" in inputs else self.asking(inputs)
        hidden = self.encoder(asked, training=training)
        vectors = self.queries(hidden_at(hidden, asked["target_positions"]))
        return vectors if asked is inputs else self.scores(vectors[:, 0])

    def asking(self, inputs):
        """Returns the batch that asks for what comes after each row's newest behaviour.

        Called on it, the model gives `[rows, 1, emb_dim]`, whose products with
        `item_vectors` are the scores.

        Args:
            inputs: Batch of one history a row, padded on either side.
        """
        present = ops.cast(inputs["segments"] > 0, "int32")
        places = ops.arange(1, ops.shape(present)[1] + 1, dtype="int32")
        newest = ops.argmax(present * places, axis=1)
        return {**inputs, "target_positions": newest[:, None]}

    def queries(self, hidden):
        """Returns hidden states as their products with `item_vectors` give scores."""
        if self.similarity == "cosine":
            hidden = unit_length(hidden)
        return hidden if self.temperature == 1.0 else hidden * (1.0 / self.temperature)

    def scores(self, vectors):
        """Returns float32 scores `[rows, vocab_size]` of `[rows, emb_dim]` that `queries` gave."""
        return ops.matmul(ops.cast(vectors, "float32"), ops.transpose(self.item_vectors))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        weights = ops.cast(ops.cast(y, "int32") >= NUM_RESERVED, "float32")
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, "float32")
        layer = self.output_layer
        if layer.seen is not None:
            # What training has not seen is no negative: it would learn to be one.
            weights = weights * ops.take(layer.seen[:, 0], ops.cast(y, "int32"), axis=0)
            y_pred = ops.concatenate([y_pred, ops.ones_like(y_pred[..., :1])], axis=-1)
        items = self._candidates(training)
        loss = self.loss(y, y_pred, items, weights, first_item=NUM_RESERVED)
        for extra in self.losses:
            loss = loss + ops.cast(replica_share(extra), loss.dtype)
        return loss

    def _candidates(self, training):
        """Returns the item table for the loss, of which only rows are read where that is cheaper.

        Where not all items are seen, rows have one more number, which the hidden states meet with
        a one: 0, or what makes a score too low to count.
        """
        layer = self.output_layer

        def completed(rows, seen):
            rows = self._scored_by(rows)
            if seen is None:
                return rows
            return ops.concatenate([rows, (1.0 - seen) * _NEVER], axis=-1)

        def read(items):
            seen = None if layer.seen is None else ops.take(layer.seen, items, axis=0)
            return completed(layer.rows(items, training=training), seen)

        if sparse_row_gradients_active() or (layer.seen is not None and self.loss.takes_rows):
            width = layer.emb_dim if layer.seen is None else layer.emb_dim + 1
            return RowTable(read, (layer.vocab_size, width))
        return completed(layer.all_rows(training=training), layer.seen)

    def _scored_by(self, vectors):
        return unit_length(vectors) if self.similarity == "cosine" else vectors

    def compute_output_spec(self, inputs, training=None):
        rows = inputs["items"].shape[0]
        if "target_positions" in inputs:
            targets = inputs["target_positions"].shape[1]
            return keras.KerasTensor(
                (rows, targets, self.encoder.emb_dim), dtype=self.encoder.compute_dtype
            )
        return keras.KerasTensor((rows, self.encoder.vocab_size), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "tie_embeddings": self.tie_embeddings,
            "similarity": self.similarity,
            "temperature": self.temperature,
            "output_embedding": keras.saving.serialize_keras_object(self.output_embedding),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        layers = {
            name: keras.saving.deserialize_keras_object(
                config.get(name), custom_objects=custom_objects
            )
            for name in ("encoder", "output_embedding")
        }
        return cls(**config | layers)


def unit_length(vectors):
    """Returns vectors `[..., emb_dim]` at length one, worked out in float32; zeros stay zeros."""
    wide = ops.cast(vectors, "float32")
    square = ops.sum(ops.square(wide), axis=-1, keepdims=True)
    # A root and a division round alike wherever a vector stands; rsqrt does not, and equal
    # vectors would not tie.
    return ops.cast(wide / ops.sqrt(ops.maximum(square, 1e-12)), vectors.dtype)
