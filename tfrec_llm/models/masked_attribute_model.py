"""Pre-training of an item encoder by the attributes of items."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.item_encoder import ItemEncoder
from tfrec_llm.losses.replicas import replica_share, sum_over_replicas
from tfrec_llm.training.memory import keep_freed_memory
from tfrec_llm.training.replicated_training import ReplicatedTraining
from tfrec_llm.training.update_order import keep_update_order


@keras.saving.register_keras_serializable(package="tfrec_llm")
class MaskedAttributeModel(ReplicatedTraining):
    """Tells an item's hidden features from the others: what goes with what in a catalogue.

    It needs no behaviour, so every item of the catalogue teaches it, new ones
    too. Train it on `tfrec_llm.data.AttributeBatches`, then hand its encoder
    to `ItemEmbedding(feature_encoder=...)`.

    A feature is told from its token, which is that of a missing one, and the
    item's vector. Categories, tags and words are chosen by cross-entropy over the vectors
    that the encoder reads them with; of tags and words all that an item has
    are right, in equal shares. Numbers, dates and ready vectors are told by
    squared error.

    Args:
        encoder: The `ItemEncoder` to train.

    Call arguments:
        features: A dict of tensors `[items]` or `[items, width]`.

    Returns:
        A dict of float32 tensors, one a feature: logits `[items, size]` of
        categories, tags and words, the standardised number `[items, 1]` of
        numbers and dates, a vector `[items, size]`.

    Example:
        >>> items = {"kind": ["top", "skirt", "top"], "usd": [5.0, 9.0, 6.0]}
        >>> encoding = tfrec_llm.data.FeatureEncoding.fit(items)
        >>> model = MaskedAttributeModel(tfrec_llm.layers.ItemEncoder(encoding, emb_dim=8))
        >>> model.compile("adam")
        >>> batches = tfrec_llm.data.AttributeBatches(encoding, encoding.encode(items))
        >>> _ = model.fit(batches, verbose=0)

    Reference:
        S3-Rec, https://arxiv.org/abs/2008.07873
    """

    def __init__(self, encoder: ItemEncoder, **kwargs: Any):
        # The encoder may compute in half precision; logits and losses stay in float32.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.encoder = encoder
        self.specs = encoder.specs

    def build(self, inputs_shape=None):
        if not self.encoder.built:
            self.encoder.build()
        self._biases = []
        self._maps = []
        for number, spec in enumerate(self.specs):
            if spec.is_index:
                bias = self.add_weight(
                    shape=(spec.size,), initializer="zeros", name=f"bias_{number}"
                )
                self._biases.append(bias)
                continue
            units = spec.size if spec.kind == "vector" else 1
            dense = keras.layers.Dense(units, dtype="float32", name=f"map_{number}")
            dense.build((None, self.encoder.emb_dim))
            self._maps.append(dense)
        self.built = True

    def compile(self, optimizer: Any = "adam", **kwargs: Any):
        """Configures training; takes what `keras.Model.compile` takes but a loss.

        Args:
            optimizer: Keras optimizer or its name.
            **kwargs: As in `keras.Model.compile`.

        Raises:
            ValueError: If a loss is given: each feature has its own.
        """
        if kwargs.pop("loss", None) is not None:
            raise ValueError("MaskedAttributeModel has a loss of its own for every feature.")
        keep_update_order()
        keep_freed_memory()
        super().compile(optimizer=optimizer, **kwargs)

    def compile_from_config(self, config):
        # Keras skips this where compile() is overridden, and a loaded model could not train on.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None):
        hidden = self.encoder.hidden(inputs, training=training)
        # The vector, which is what the encoder is for, learns beside the tokens.
        states = ops.cast(hidden + self.encoder.vector(hidden)[:, None], "float32")
        biases, maps = iter(self._biases), iter(self._maps)
        told = {}
        for place, spec in enumerate(self.specs):
            state = states[:, place]
            if spec.is_index:
                table = self.encoder.feature_embedding.table_of(spec.name)
                told[spec.name] = ops.matmul(state, ops.transpose(table)) + next(biases)
            else:
                told[spec.name] = next(maps)(state)
        return told

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        total, count = 0.0, 1e-12
        for spec in self.specs:
            losses = _losses(spec, y[spec.name], y_pred[spec.name])
            weights = (
                ops.ones_like(losses)
                if sample_weight is None
                else ops.cast(sample_weight[spec.name], "float32")
            )
            total = total + ops.sum(weights * losses)
            count = count + ops.sum(weights)
        loss = total / sum_over_replicas(count)
        for extra in self.losses:
            loss = loss + ops.cast(replica_share(extra), "float32")
        return loss

    def compute_output_spec(self, inputs, training=None):
        rows = inputs[self.specs[0].name].shape[0]
        units = {
            spec.name: spec.size if spec.is_index or spec.kind == "vector" else 1
            for spec in self.specs
        }
        return {
            name: keras.KerasTensor((rows, count), dtype="float32") for name, count in units.items()
        }

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(
            config["encoder"], custom_objects=custom_objects
        )
        return cls(**config | {"encoder": encoder})


def _losses(spec, truth, told):
    """Returns float32 `[items]`, how wrong what was told of a feature is."""
    if spec.kind == "vector":
        return ops.mean(ops.square(told - truth), axis=-1)
    if not spec.is_index:
        return ops.square(told[:, 0] - truth[:, 0])
    logits = ops.log_softmax(told, axis=-1)
    truth = ops.cast(truth, "int32")
    if spec.kind == "categorical":
        return -ops.take_along_axis(logits, truth[:, None], axis=-1)[:, 0]
    present = ops.cast(truth > 0, "float32")
    hits = ops.sum(ops.take_along_axis(logits, truth, axis=-1) * present, axis=-1)
    return -hits / ops.maximum(ops.sum(present, axis=-1), 1.0)
