"""The encoded features of every index."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pyarrow as pa
from keras import ops

from tfrec_llm.data.feature_encoding import (
    FeatureEncoding,
    FeatureSpec,
    feature_specs,
    missing_features,
)
from tfrec_llm.data.feature_table import FeatureTable
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary


@keras.saving.register_keras_serializable(package="tfrec_llm")
class FeatureLookup(keras.layers.Layer):
    """Gives what is known of items or users by their index.

    The arrays are weights that are not trained, so they are saved with the
    model, and a model asks for nothing but indexes.

    Args:
        features: A `FeatureEncoding`, which is kept and encodes what comes
            later, or a `FeatureSpec` a feature.
        arrays: An array a feature, `[vocab_size, ...]`, as
            `FeatureEncoding.encode` gives them. None for all missing.
        vocab_size: Number of indexes; that of the arrays where they are given.

    Call arguments:
        indexes: Integer tensor of any shape, `0 <= indexes < vocab_size`.

    Returns:
        A dict of int32 or float32 tensors, of the shape of `indexes` with
        that of a row behind it.

    Raises:
        ValueError: If an array is missing or does not fit its feature.

    Example:
        >>> items = pa.table({"item": ["A13", "B4"], "kind": ["top", "skirt"]})
        >>> items = tfrec_llm.data.Catalogue(items)
        >>> encoding = tfrec_llm.data.FeatureEncoding.fit(items)
        >>> vocabulary = tfrec_llm.data.Vocabulary(["B4", "A13"])
        >>> lookup = FeatureLookup.of(encoding, items, vocabulary)
        >>> lookup(keras.ops.array([3, 4, 0]))["kind"].numpy().tolist()
        [3, 2, 0]
    """

    def __init__(
        self,
        features: FeatureEncoding | Sequence[FeatureSpec],
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        vocab_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoding = features if isinstance(features, FeatureEncoding) else None
        self.specs = feature_specs(features)
        if arrays is None:
            if vocab_size is None:
                raise ValueError("FeatureLookup needs arrays, or vocab_size for all missing.")
            arrays = missing_features(self.specs, vocab_size)
        self._arrays: dict[str, np.ndarray] | None = self._checked(arrays, vocab_size)
        self.vocab_size = len(self._arrays[self.specs[0].name])

    @classmethod
    def of(
        cls, encoding: FeatureEncoding, table: FeatureTable, vocabulary: Vocabulary, **options: Any
    ) -> "FeatureLookup":
        """Looks a vocabulary's ids up in a table; of reserved indexes nothing is known.

        Args:
            encoding: Fitted on the rows of train.
            table: The features by id; ids that it does not hold are missing.
            vocabulary: Gives the ids their indexes.
            **options: Of the layer.
        """
        reserved = pa.nulls(NUM_RESERVED, vocabulary.ids.type)
        ids = pa.concat_arrays([reserved, vocabulary.ids])
        return cls(encoding, encoding.encode(table, ids=ids), **options)

    def build(self, indexes_shape=None):
        assert self._arrays is not None
        self._tables = [
            self.add_weight(
                name=f"feature_{number}",
                shape=self._arrays[spec.name].shape,
                dtype=self._arrays[spec.name].dtype.name,
                initializer=_Given(self._arrays[spec.name]),
                trainable=False,
                autocast=False,
            )
            for number, spec in enumerate(self.specs)
        ]
        self._arrays = None
        super().build(indexes_shape)

    def call(self, indexes):
        return {
            spec.name: ops.take(table, indexes, axis=0)
            for spec, table in zip(self.specs, self._tables, strict=True)
        }

    def put(self, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces the rows from `first` on, for instance by newer features.

        Args:
            first: Index of the first row.
            arrays: An array a feature, `[rows, ...]`.

        Raises:
            ValueError: If an array is missing, does not fit, or is too long.
        """
        checked = self._checked(arrays, None)
        stop = first + len(checked[self.specs[0].name])
        if not 0 <= first <= stop <= self.vocab_size:
            raise ValueError(f"Rows {first} to {stop} do not lie in 0 to {self.vocab_size}.")
        for spec, table in zip(self.specs, self._tables, strict=True):
            values = np.array(ops.convert_to_numpy(table))
            values[first:stop] = checked[spec.name]
            table.assign(values)

    def known(self, features):
        """Returns where anything at all is known, of features that a call gave.

        Args:
            features: A dict of tensors.

        Returns:
            Boolean tensor of the shape of the indexes.
        """
        found = None
        for spec in self.specs:
            values = features[spec.name]
            if spec.kind == "categorical":
                here = values > 0
            elif spec.kind in ("numeric", "date"):
                here = values[..., 1] == 0
            else:
                here = ops.any(values != 0, axis=-1)
            found = here if found is None else ops.logical_or(found, here)
        return found

    def get_config(self) -> dict[str, Any]:
        if self.encoding is None:
            features: dict[str, Any] = {"specs": [spec.get_config() for spec in self.specs]}
        else:
            features = {"encoding": self.encoding.get_config()}
        return super().get_config() | {"features": features, "vocab_size": self.vocab_size}

    @classmethod
    def from_config(cls, config):
        features = config["features"]
        if "encoding" in features:
            features = FeatureEncoding.from_config(features["encoding"])
        else:
            features = feature_specs(features["specs"])
        return cls(**config | {"features": features})

    def _checked(self, arrays: Mapping[str, np.ndarray], rows: int | None) -> dict[str, np.ndarray]:
        checked = {}
        for spec in self.specs:
            if spec.name not in arrays:
                raise ValueError(f"There is no array of {spec.name!r}, only of {sorted(arrays)}.")
            array = np.asarray(arrays[spec.name], np.int32 if spec.is_index else np.float32)
            rows = len(array) if rows is None else rows
            if array.shape != (rows, *spec.shape):
                raise ValueError(
                    f"The array of {spec.name!r} has the shape {array.shape}; a {spec.kind} "
                    f"feature of {rows} rows has {(rows, *spec.shape)}."
                )
            if spec.is_index and array.size and not 0 <= array.min() <= array.max() < spec.size:
                raise ValueError(
                    f"The array of {spec.name!r} holds indexes from {array.min()} to "
                    f"{array.max()}; they lie in 0 to {spec.size - 1}."
                )
            checked[spec.name] = array
        return checked


class _Given(keras.initializers.Initializer):
    """Starts a weight from values that are there."""

    def __init__(self, values: np.ndarray):
        self._values = values

    def __call__(self, shape, dtype=None):
        return ops.convert_to_tensor(self._values, dtype=dtype)
