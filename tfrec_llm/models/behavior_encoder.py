"""The backbone: histories of item indexes to hidden states."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.layers.transformer_encoder import TransformerEncoder
from tfrec_llm.training.fine_tuning import restore_tuning


@keras.saving.register_keras_serializable(package="tfrec_llm")
class BehaviorEncoder(keras.Model):
    """Encodes users' behaviours by a Transformer: `H = Transformer(x_1 .. x_T)`.

    One encoder serves all objectives: pre-train it in one task model, hand it
    to the next.

    Args:
        vocab_size: Number of item indexes, the reserved ones included
            (`Vocabulary.size`).
        emb_dim: Width of item vectors and hidden states.
        num_layers: Number of Transformer blocks.
        num_heads: Number of attention heads.
        hid_dim: Width of the feed-forward sublayers; None stands for
            `4 * emb_dim`.
        max_length: Longest history that gets positions of its own.
        block: `"pre_norm"`, `"post_norm"` or `"gated"`, see `TransformerBlock`.
        input_norm: See `TransformerEncoder`.
        position_encoding: `"learned"`, `"rotary"` or `"none"`.
        dropout: Share of inputs and sublayer outputs dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        filter_share: See `TransformerBlock`.
        num_behaviors: Number of behaviour types, 0 for none: adds a trained
            vector a type. Batches then hold `behaviors`, 0 meaning unknown.
        causal: Whether a behaviour sees only those before it. None leaves it
            to the objective: `NextBehaviorModel` sets True,
            `MaskedBehaviorModel` False.
        item_embedding: Layer that gives the items' vectors, such as an
            `ItemEmbedding` with features or a `CompressedTable`; None makes
            an `ItemEmbedding` of indexes alone.

    Call arguments:
        inputs: Batch, a dict of integer tensors `[rows, length]`: `items`,
            `segments`, `positions` and, with `num_behaviors`, `behaviors`.

    Returns:
        Float tensor `[rows, length, emb_dim]`.

    Attributes:
        tuning: What `tfrec_llm.training.freeze` or `add_lora` made of it, saved with it.

    Raises:
        ValueError: If sizes do not fit or an option has an unknown name.

    Example:
        >>> encoder = BehaviorEncoder(vocab_size=100, emb_dim=8, num_layers=1, num_heads=2)
        >>> batch = {
        ...     "items": keras.ops.array([[3, 4, 5]]),
        ...     "segments": keras.ops.array([[1, 1, 1]]),
        ...     "positions": keras.ops.array([[2, 1, 0]]),
        ... }
        >>> tuple(encoder(batch).shape)
        (1, 3, 8)

    Reference:
        BERT4Rec, https://arxiv.org/abs/1904.06690
    """

    def __init__(
        self,
        vocab_size: int,
        emb_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        *,
        hid_dim: int | None = None,
        max_length: int = 200,
        block: str = "pre_norm",
        input_norm: bool | None = None,
        position_encoding: str = "learned",
        dropout: float = 0.2,
        attention_dropout: float = 0.0,
        filter_share: float = 0.0,
        num_behaviors: int = 0,
        causal: bool | None = None,
        item_embedding: keras.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.emb_dim = emb_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hid_dim = hid_dim
        self.max_length = max_length
        self.block = block
        self.input_norm = input_norm
        self.position_encoding = position_encoding
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.filter_share = filter_share
        self.num_behaviors = num_behaviors
        self._own_embedding = item_embedding is None
        self.item_embedding = item_embedding or ItemEmbedding(
            vocab_size, emb_dim, dtype=self.dtype_policy, name="item_embedding"
        )
        self.behavior_embedding = None
        if num_behaviors:
            self.behavior_embedding = ItemEmbedding(
                num_behaviors + 1, emb_dim, dtype=self.dtype_policy, name="behavior_embedding"
            )
        self.transformer = TransformerEncoder(
            num_layers,
            num_heads,
            hid_dim=hid_dim,
            block=block,
            input_norm=input_norm,
            position_encoding=position_encoding,
            # One more than a history: a masked model asks at the place after the newest.
            max_length=max_length + 1,
            dropout=dropout,
            attention_dropout=attention_dropout,
            filter_share=filter_share,
            dtype=self.dtype_policy,
            name="transformer",
        )
        self.causal = causal
        self.tuning: dict[str, Any] = {}

    @property
    def causal(self) -> bool | None:
        """Whether a behaviour sees only those before it; None while undecided."""
        return self._causal

    @causal.setter
    def causal(self, value: bool | None) -> None:
        self._causal = value
        self.transformer.causal = bool(value)

    def build(self, inputs_shape=None):
        hidden_shape = (None, None, self.emb_dim)
        if not self.item_embedding.built:
            self.item_embedding.build((None, None))
        if self.behavior_embedding is not None:
            self.behavior_embedding.build((None, None))
        self.transformer.build(hidden_shape)
        restore_tuning(self)
        self.built = True

    def call(self, inputs, training=None):
        x = self.item_embedding(inputs["items"])
        if self.behavior_embedding is not None:
            if "behaviors" not in inputs:
                raise ValueError(
                    "This encoder was made with num_behaviors, but the batch has no 'behaviors'. "
                    f"It has {sorted(inputs)}."
                )
            x = x + self.behavior_embedding(inputs["behaviors"])
        return self.transformer(
            x,
            segments=inputs["segments"],
            positions=inputs["positions"],
            training=training,
        )

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((*inputs["items"].shape, self.emb_dim), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocab_size": self.vocab_size,
            "emb_dim": self.emb_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hid_dim": self.hid_dim,
            "max_length": self.max_length,
            "block": self.block,
            "input_norm": self.input_norm,
            "position_encoding": self.position_encoding,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "filter_share": self.filter_share,
            "num_behaviors": self.num_behaviors,
            "causal": self.causal,
            "item_embedding": (
                None
                if self._own_embedding
                else keras.saving.serialize_keras_object(self.item_embedding)
            ),
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "tuning": dict(self.tuning),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        embedding = keras.saving.deserialize_keras_object(
            config.get("item_embedding"), custom_objects=custom_objects
        )
        options = {name: value for name, value in config.items() if name != "tuning"}
        encoder = cls(**options | {"item_embedding": embedding})
        encoder.tuning = config.get("tuning", {})
        return encoder


def hidden_at(hidden, places):
    """Returns hidden states at given places of each row.

    Args:
        hidden: Float tensor `[rows, length, emb_dim]`.
        places: Integer tensor `[rows, count]`, indexes along the length.

    Returns:
        Float tensor `[rows, count, emb_dim]`.
    """
    rows, length = ops.shape(hidden)[0], ops.shape(hidden)[1]
    flat = ops.cast(places, "int32") + ops.arange(rows, dtype="int32")[:, None] * length
    return ops.take(ops.reshape(hidden, (-1, hidden.shape[-1])), flat, axis=0)
