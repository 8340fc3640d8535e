"""Pre-training by the attributes of items."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.losses.replicas import sum_over_replicas
from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.encoder_task import EncoderTask
from tfrec_llm.models.masked_behavior_model import ask_behind


@keras.saving.register_keras_serializable(package="tfrec_llm")
class AttributeModel(EncoderTask):
    """Predicts what the next, or a masked, item is like: `p = sigmoid(W h + b)`.

    An item has any number of attributes, such as its category, brand and
    tags; each is a yes or no, and the loss is their cross-entropies' sum.
    Train it on the batches of the items themselves: `next_batches` where the
    encoder is causal, `masked_batches` where it looks both ways. Items
    without attributes are no targets.

    `predict` on padded histories gives the probabilities of the next item's
    attributes.

    Args:
        encoder: The `BehaviorEncoder` to train.
        attributes: int `[vocab_size, width]`, the attributes of every item,
            each once, from 1 on, 0 behind them; `item_attributes` makes it of
            a catalogue. It is saved with the model's weights; None makes room
            for it only.
        num_attributes: Number of attributes; None counts them.
        max_attributes: Width of `attributes` where these are not given.

    Call arguments:
        inputs: Batch, see `BehaviorEncoder`, with `target_positions`
            `[rows, targets]` in training.

    Returns:
        float32 logits `[rows, targets, num_attributes]` in training, else
        probabilities `[rows, num_attributes]`; attribute 1 comes first.

    Raises:
        ValueError: If the attributes do not fit the encoder, are none, or
            stand in an item twice.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=6, emb_dim=8, causal=True)
        >>> attributes = np.array([[0, 0], [0, 0], [0, 0], [1, 2], [1, 3], [2, 0]])
        >>> model = AttributeModel(encoder, attributes)
        >>> model.compile("adam")

    Reference:
        S3-Rec, https://arxiv.org/abs/2008.07873
    """

    def __init__(
        self,
        encoder: BehaviorEncoder,
        attributes: np.ndarray | None = None,
        *,
        num_attributes: int | None = None,
        max_attributes: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, **kwargs)
        if attributes is not None:
            attributes = _checked(attributes, encoder.vocab_size)
            num_attributes = num_attributes or int(attributes.max())
            max_attributes = attributes.shape[1]
            if attributes.max() > num_attributes:
                raise ValueError(
                    f"There is an attribute {attributes.max()}, but num_attributes is "
                    f"{num_attributes}."
                )
        if not num_attributes or not max_attributes:
            raise ValueError("Give attributes, or num_attributes and max_attributes.")
        self.num_attributes = num_attributes
        self.max_attributes = max_attributes
        self._given: Any = attributes
        self.logits = keras.layers.Dense(
            num_attributes,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            bias_initializer="zeros" if attributes is None else self._first_guess,
            dtype="float32",
            name="logits",
        )

    def build_head(self) -> None:
        self.logits.build((None, None, self.encoder.emb_dim))
        self.attributes = self.add_weight(
            shape=(self.encoder.vocab_size, self.max_attributes),
            dtype="int32",
            initializer="zeros" if self._given is None else self._as_given,
            trainable=False,
            name="attributes",
        )

    def _as_given(self, shape, dtype=None):
        return ops.convert_to_tensor(self._given, dtype)

    def _first_guess(self, shape, dtype=None):
        """Returns how many items have each attribute, so that rare ones start as such."""
        owners = np.bincount(self._given.ravel(), minlength=self.num_attributes + 1)[1:]
        share = (owners + 0.5) / (np.count_nonzero(self._given.any(axis=1)) + 1.0)
        return ops.convert_to_tensor(np.log(share / (1.0 - share)), dtype)

    def asking(self, inputs):
        return super().asking(inputs) if self.encoder.causal else ask_behind(inputs)

    def head(self, hidden):
        return self.logits(hidden)

    def call(self, inputs, training=None):
        logits = super().call(inputs, training=training)
        return logits if "target_positions" in inputs else ops.sigmoid(logits[:, 0])

    def compile(self, optimizer: Any = "adam", loss: None = None, **kwargs: Any):
        """Configures training; takes what `keras.Model.compile` takes, but loss and metrics.

        Raises:
            ValueError: If a loss or metrics are given: they would see the
                indexes of items beside the logits of attributes.
        """
        if loss is not None or kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise ValueError(
                "AttributeModel has its own loss and takes no metrics: they would see the indexes "
                "of items beside the logits of attributes."
            )
        super().compile(optimizer, **kwargs)

    def default_loss(self) -> None:
        """Returns None: `compute_loss` does it."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        attributes = ops.take(self.attributes, ops.cast(y, "int32"), axis=0)
        present = ops.cast(attributes > 0, "float32")
        hits = ops.take_along_axis(y_pred, ops.maximum(attributes - 1, 0), axis=-1)
        entropy = ops.sum(ops.softplus(y_pred), axis=-1) - ops.sum(present * hits, axis=-1)
        weights = present[..., 0]
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, "float32")
        return ops.sum(weights * entropy) / ops.maximum(sum_over_replicas(ops.sum(weights)), 1e-12)

    def head_shape(self) -> tuple[int, ...]:
        return (self.num_attributes,)

    def compute_output_spec(self, inputs, training=None):
        spec = super().compute_output_spec(inputs)
        if "target_positions" not in inputs:
            spec = keras.KerasTensor((spec.shape[0], self.num_attributes), dtype="float32")
        return spec

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "attributes": None,
            "num_attributes": self.num_attributes,
            "max_attributes": self.max_attributes,
        }


def _checked(attributes: np.ndarray, vocab_size: int) -> np.ndarray:
    attributes = np.asarray(attributes)
    if attributes.ndim != 2 or len(attributes) != vocab_size or attributes.dtype.kind not in "iu":
        raise ValueError(
            f"attributes must be integers of shape [{vocab_size}, width], got "
            f"{attributes.dtype} {attributes.shape}."
        )
    # Rising, with the padding last: the first place then tells whether there is any.
    last = np.iinfo(np.int32).max
    rising = np.sort(np.where(attributes == 0, last, attributes), axis=1)
    if rising.min() < 0 or not attributes.any():
        raise ValueError("attributes must be 0 or more, and one of them more.")
    if ((rising[:, 1:] == rising[:, :-1]) & (rising[:, 1:] != last)).any():
        raise ValueError("An item has an attribute twice. Name each once.")
    return np.where(rising == last, 0, rising).astype(np.int32)
