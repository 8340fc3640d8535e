"""Features as vectors, a token each."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfrec_llm.data.feature_encoding import FeatureEncoding, FeatureSpec, feature_specs
from tfrec_llm.losses.table_rows import trained_rows


@keras.saving.register_keras_serializable(package="tfrec_llm")
class FeatureEmbedding(keras.layers.Layer):
    """Embeds encoded features: a vector a feature, as a Transformer reads tokens.

    A category has a trained vector. Several values, and the words of a text,
    are the mean of theirs. Numbers, dates and ready vectors pass a dense map.
    A missing feature has a trained vector, too.

    Args:
        specs: A `FeatureSpec` a feature, or the `FeatureEncoding`.
        emb_dim: Width of a token.
        initializer_range: Standard deviation that tokens start with.

    Call arguments:
        features: A dict of tensors `[...]`, `[..., width]` behind the same
            leading axes, as `FeatureEncoding.encode` or `FeatureLookup` gives
            them.

    Returns:
        Float tensor `[..., num_features, emb_dim]`.

    Raises:
        ValueError: If there is no spec, `emb_dim` is not positive, or a
            feature is missing in the dict.

    Example:
        >>> encoding = tfrec_llm.data.FeatureEncoding.fit({"kind": ["top", "skirt"], "usd": [5, 9]})
        >>> embedding = FeatureEmbedding(encoding.specs, emb_dim=8)
        >>> arrays = encoding.encode({"kind": ["skirt", None, "hat"], "usd": [7, 7, None]})
        >>> tuple(embedding(arrays).shape)
        (3, 2, 8)

    Reference:
        Revisiting Deep Learning Models for Tabular Data,
        https://arxiv.org/abs/2106.11959
    """

    def __init__(
        self,
        specs: Sequence[FeatureSpec] | FeatureEncoding,
        emb_dim: int,
        *,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if emb_dim < 1:
            raise ValueError(f"emb_dim must be positive, got {emb_dim}.")
        self.specs = feature_specs(specs)
        self.emb_dim = emb_dim
        self.initializer_range = initializer_range

    def build(self, features_shape=None):
        # By the number of the feature: its name may hold what Keras does not take in names.
        self._maps: list[Any] = []
        self._tables: list[Any] = []
        for number, spec in enumerate(self.specs):
            if spec.is_index:
                table = self.add_weight(
                    shape=(spec.size, self.emb_dim),
                    initializer=keras.initializers.TruncatedNormal(stddev=self.initializer_range),
                    # Cast when taken, so that gradients add up in float32.
                    autocast=False,
                    name=f"table_{number}",
                )
                self._tables.append(table)
                continue
            dense = keras.layers.Dense(
                self.emb_dim,
                kernel_initializer=small_outputs(self.initializer_range),
                dtype=self.dtype_policy,
                name=f"map_{number}",
            )
            dense.build((None, spec.width))
            self._maps.append(dense)
        super().build(features_shape)

    def call(self, features):
        missing = [spec.name for spec in self.specs if spec.name not in features]
        if missing:
            raise ValueError(f"The features {missing} are missing; there are {sorted(features)}.")
        tables, maps = iter(self._tables), iter(self._maps)
        tokens = []
        for spec in self.specs:
            values = features[spec.name]
            if not spec.is_index:
                token = next(maps)(values)
            elif spec.kind == "categorical":
                token = trained_rows(next(tables), ops.cast(values, "int32"))
            else:
                token = _mean_of_rows(next(tables), ops.cast(values, "int32"))
            tokens.append(ops.cast(token, self.compute_dtype))
        return ops.stack(tokens, axis=-2)

    def table_of(self, name: str):
        """Returns the float32 variable `[size, emb_dim]` of a category's, tags' or words' vectors.

        Raises:
            KeyError: If no such feature has one.
        """
        indexed = [spec.name for spec in self.specs if spec.is_index]
        if name not in indexed:
            raise KeyError(f"{name!r} has no table; {indexed} have.")
        return self._tables[indexed.index(name)]

    def compute_output_spec(self, features):
        spec = self.specs[0]
        leading = features[spec.name].shape[: -len(spec.shape) or None]
        shape = (*leading, len(self.specs), self.emb_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "specs": [spec.get_config() for spec in self.specs],
            "emb_dim": self.emb_dim,
            "initializer_range": self.initializer_range,
        }


def small_outputs(stddev: float) -> keras.initializers.Initializer:
    """Returns a kernel's initializer that gives outputs of `stddev` for inputs of variance one."""
    return keras.initializers.VarianceScaling(stddev**2, mode="fan_in")


def _mean_of_rows(table, indexes):
    """Returns the mean of the rows of indexes `[..., width]` but 0; row 0 where there is no other.

    Row 0 is what a missing feature has.
    """
    used = ops.cast(indexes > 0, "float32")
    none = 1.0 - ops.max(used, axis=-1, keepdims=True)
    first = ops.cast(ops.arange(ops.shape(indexes)[-1]) == 0, "float32")
    shares = used + none * first
    shares = shares / ops.sum(shares, axis=-1, keepdims=True)
    return ops.sum(trained_rows(table, indexes) * shares[..., None], axis=-2)
