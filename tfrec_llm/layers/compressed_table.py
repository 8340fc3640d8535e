"""Item vectors in few bytes."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.layers.item_table import ItemTable

KINDS = ("float16", "int8", "product")

# Centroids of a part of the vectors: a code of one byte names one.
_CENTROIDS = 256
# Vectors that centroids are found on, and at how many rounds.
_SAMPLE, _ROUNDS = 1 << 16, 15


@keras.saving.register_keras_serializable(package="tfrec_llm")
class CompressedTable(ItemTable):
    """Gives items' vectors from a small table: an `ItemEmbedding` that is trained no more.

    - `"float16"`: half precision, 2 bytes a number.
    - `"int8"`: one byte a number and one scale a row.
    - `"product"`: a vector is cut into `num_codes` parts, and a byte names the
      nearest of 256 centroids of each part, found by k-means.

    The rows that are no items (padding, mask, unknown) are kept as they are:
    the mask's vector is read at every prediction of a masked model.

    Args:
        vocab_size: Number of indexes, the reserved ones included.
        emb_dim: Width of a vector.
        kind: One of the above.
        num_codes: Bytes an item of `"product"`; divides `emb_dim`. None takes
            a code for eight numbers.
        num_exact: Rows at the table's head that are kept as they are.

    Call arguments:
        items: Integer tensor of any shape, `0 <= items < vocab_size`.

    Returns:
        Float tensor of the shape of `items` with `emb_dim` behind it.

    Raises:
        ValueError: If the kind is unknown or `num_codes` does not fit.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
        >>> table = CompressedTable.of(vectors, kind="int8")
        >>> float(keras.ops.max(keras.ops.abs(table.table - vectors))) < 0.02
        True
        >>> table.bytes_per_item
        12.0

    Reference:
        RecJPQ, https://arxiv.org/abs/2312.06165;
        Product Quantization for Nearest Neighbor Search,
        https://doi.org/10.1109/TPAMI.2010.57
    """

    def __init__(
        self,
        vocab_size: int,
        emb_dim: int,
        *,
        kind: str = "int8",
        num_codes: int | None = None,
        num_exact: int = 3,
        **kwargs: Any,
    ):
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        if kind != "product":
            if num_codes is not None:
                raise ValueError(f'num_codes is for "product" only, got {num_codes} for {kind!r}.')
            num_codes = 0
        elif num_codes is None:
            num_codes = emb_dim // 8 if emb_dim % 8 == 0 else emb_dim
        elif num_codes < 1 or emb_dim % num_codes:
            raise ValueError(f"num_codes must divide emb_dim {emb_dim}, got {num_codes}.")
        self.vocab_size = vocab_size
        self.emb_dim = emb_dim
        self.kind = kind
        self.num_codes = num_codes
        self.num_exact = min(num_exact, vocab_size)

    @classmethod
    def of_layer(cls, layer: ItemTable, **options: Any) -> "CompressedTable":
        """Compresses what a layer gives for all items; the layer's name and dtype policy are kept.

        Args:
            layer: A built `ItemEmbedding` or the like.
            **options: As of `of`.
        """
        vectors = np.asarray(ops.cast(layer.all_rows(), "float32"))
        return cls.of(vectors, dtype=layer.dtype_policy, name=layer.name, **options)

    @classmethod
    def of(
        cls, vectors: np.ndarray, *, kind: str = "int8", seed: int = 0, **options: Any
    ) -> "CompressedTable":
        """Compresses a table.

        Args:
            vectors: float32 `[vocab_size, emb_dim]`.
            kind: As of the layer.
            seed: Of k-means.
            **options: Further arguments of the layer.
        """
        layer = cls(*vectors.shape, kind=kind, **options)
        layer.build()
        layer.exact.assign(vectors[: layer.num_exact])
        if kind == "float16":
            layer.values.assign(vectors.astype(np.float16))
        elif kind == "int8":
            scales = np.abs(vectors).max(axis=1, keepdims=True) / 127.0
            layer.scales.assign(scales)
            layer.values.assign(np.rint(vectors / np.maximum(scales, 1e-30)).astype(np.int8))
        else:
            codes, centroids = _product_codes(
                vectors, layer.num_codes, layer.num_exact, np.random.default_rng(seed)
            )
            layer.codes.assign(codes)
            layer.centroids.assign(centroids)
        return layer

    def build(self, items_shape=None):
        def table(name, shape, dtype):
            weight = self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                autocast=False,
            )
            setattr(self, name, weight)

        table("exact", (self.num_exact, self.emb_dim), "float32")
        if self.kind == "product":
            part = self.emb_dim // self.num_codes
            table("codes", (self.vocab_size, self.num_codes), "uint8")
            table("centroids", (self.num_codes, _CENTROIDS, part), "float32")
        else:
            table("values", (self.vocab_size, self.emb_dim), self.kind)
        if self.kind == "int8":
            table("scales", (self.vocab_size, 1), "float32")
        super().build(items_shape)

    @property
    def table(self):
        """float32 tensor `[vocab_size, emb_dim]`: all vectors, decoded."""
        return self.rows(ops.arange(self.vocab_size))

    @property
    def bytes_per_item(self) -> float:
        """Bytes that one more item takes."""
        if self.kind == "product":
            return float(self.num_codes)
        return 2.0 * self.emb_dim if self.kind == "float16" else 4.0 + self.emb_dim

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocab_size": self.vocab_size,
            "emb_dim": self.emb_dim,
            "kind": self.kind,
            "num_codes": self.num_codes or None,
            "num_exact": self.num_exact,
        }

    def rows(self, items, *, training=False):
        if self.kind == "product":
            codes = ops.cast(ops.take(self.codes, items, axis=0), "int32")
            part = ops.arange(self.num_codes, dtype="int32") * _CENTROIDS
            centroids = ops.reshape(self.centroids, (-1, self.emb_dim // self.num_codes))
            parts = ops.take(centroids, codes + part, axis=0)
            vectors = ops.reshape(parts, (*ops.shape(items), self.emb_dim))
        else:
            vectors = ops.cast(ops.take(self.values, items, axis=0), "float32")
        if self.kind == "int8":
            vectors = vectors * ops.take(self.scales, items, axis=0)
        if not self.num_exact:
            return vectors
        exact = ops.take(self.exact, ops.minimum(items, self.num_exact - 1), axis=0)
        return ops.where(ops.expand_dims(items < self.num_exact, -1), exact, vectors)


def _product_codes(
    vectors: np.ndarray, num_codes: int, num_exact: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 codes `[rows, num_codes]` and float32 centroids `[num_codes, 256, part]`."""
    rows, width = vectors.shape
    part = width // num_codes
    codes = np.empty((rows, num_codes), np.uint8)
    centroids = np.zeros((num_codes, _CENTROIDS, part), np.float32)
    items = np.arange(min(num_exact, rows - 1), rows)
    sample = rng.permutation(items)[:_SAMPLE]
    for code in range(num_codes):
        columns = slice(code * part, (code + 1) * part)
        found = k_means(vectors[sample, columns], _CENTROIDS, rng)
        centroids[code, : len(found)] = found
        for start in range(0, rows, _SAMPLE):
            chunk = slice(start, start + _SAMPLE)
            codes[chunk, code] = _nearest(vectors[chunk, columns], found)
    return codes, centroids


def k_means(
    vectors: np.ndarray, count: int, rng: np.random.Generator, *, rounds: int = _ROUNDS
) -> np.ndarray:
    """Finds centroids of vectors by Lloyd's algorithm, from vectors drawn at random.

    Args:
        vectors: float32 `[n, width]`, one or more.
        count: Number of centroids; n are found where there are fewer vectors.
        rng: Source of the draws.
        rounds: Rounds of assigning and averaging.

    Returns:
        float32 `[min(count, n), width]`. One that loses all its vectors moves
        to a vector drawn at random.

    Example:
        >>> corners = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
        >>> found = k_means(corners, 2, np.random.default_rng(0))
        >>> found.sum(axis=0).tolist()
        [1.0, 1.0]
    """
    count = min(count, len(vectors))
    centroids = vectors[rng.choice(len(vectors), count, replace=False)]
    for _ in range(rounds):
        nearest = _nearest(vectors, centroids)
        sizes = np.bincount(nearest, minlength=count)
        sums = [np.bincount(nearest, column, minlength=count) for column in vectors.T]
        means = np.stack(sums, axis=1) / np.maximum(sizes, 1)[:, None]
        lost = vectors[rng.integers(0, len(vectors), count)]
        centroids = np.where(sizes[:, None] > 0, means, lost).astype(np.float32)
    return centroids


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Returns int64 `[n]`: the nearest centroid of every vector."""
    half_squares = 0.5 * np.square(centroids).sum(axis=1)
    return np.argmax(vectors @ centroids.T - half_squares, axis=1)
