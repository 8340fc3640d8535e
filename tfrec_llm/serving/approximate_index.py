"""Approximate search, for catalogues too large to compare with every item."""

import json
import os
import threading
from typing import Any

import numpy as np

from tfrec_llm.errors import SavedModelError
from tfrec_llm.serving.item_index import ItemIndex, Nearest

# Vectors a list that its centroid is learned from, at most.
_SAMPLE = 64
# With a filter that leaves a smaller share, all lists are read: few of their items count.
_NARROW = 0.1


class ApproximateIndex(ItemIndex):
    """Compares a query only with items in the lists whose centroids are nearest to it.

    An inverted file of faiss: vectors are put into about the square root of their number of
    lists by k-means. New items join the lists that are there; make the index anew when many times
    more have come.

    Args:
        emb_dim: Width of the vectors.
        num_lists: Number of lists; None for the square root of the number of items first added.
        probes: Lists that are read for a query; None for an eighth. More find more and take
            longer.
        num_codes: Bytes that an item's vector is coded in by product quantisation; divides
            `emb_dim`. None keeps the vectors, 4 bytes a number.

    Raises:
        ImportError: If the extra `[faiss]` is not installed.
        ValueError: If an option does not fit.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
        >>> index = ApproximateIndex(8, probes=4)
        >>> index.add(np.arange(1000), vectors)
        >>> index.search(vectors[:1], 3).items.shape
        (1, 3)

    Reference:
        The Faiss library, https://arxiv.org/abs/2401.08281;
        Product Quantization for Nearest Neighbor Search,
        https://doi.org/10.1109/TPAMI.2010.57
    """

    kind = "approximate"

    def __init__(
        self,
        emb_dim: int,
        *,
        num_lists: int | None = None,
        probes: int | None = None,
        num_codes: int | None = None,
    ):
        super().__init__(emb_dim)
        for name, value in (("num_lists", num_lists), ("probes", probes), ("num_codes", num_codes)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        if num_codes is not None and emb_dim % num_codes:
            raise ValueError(f"num_codes {num_codes} does not divide emb_dim {emb_dim}.")
        self.num_lists = num_lists
        self.probes = probes
        self.num_codes = num_codes
        self._faiss = _faiss()
        self._index: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return 0 if self._index is None else self._index.ntotal

    def _add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        with self._lock:
            if self._index is None:
                if not len(items):
                    return
                self._index = self._made(vectors)
            self._index.add_with_ids(vectors, items)

    def remove(self, items: np.ndarray) -> int:
        items = np.asarray(items, np.int64)
        with self._lock:
            if self._index is None or not len(items):
                return 0
            return int(self._index.remove_ids(self._faiss.IDSelectorBatch(items)))

    def _search(self, queries: np.ndarray, k: int, only: np.ndarray | None) -> Nearest:
        if self._index is None:
            shape = (len(queries), k)
            return Nearest(np.full(shape, -1), np.full(shape, -np.inf, np.float32))
        lists = self._index.nlist
        probes = max(1, lists // 8) if self.probes is None else min(self.probes, lists)
        options: dict[str, Any] = {}
        if only is not None:
            options["sel"] = self._faiss.IDSelectorBatch(only)
            if len(only) < _NARROW * len(self):
                probes = lists
        scores, items = self._found(queries, k, probes, options)
        short = np.flatnonzero((items < 0).any(axis=1))
        if len(short) and probes < lists:  # the lists read hold too few
            scores[short], items[short] = self._found(queries[short], k, lists, options)
        return Nearest(items, np.where(items >= 0, scores, -np.inf).astype(np.float32))

    def _found(
        self, queries: np.ndarray, k: int, probes: int, options: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        parameters = self._faiss.SearchParametersIVF(nprobe=probes, **options)
        with self._lock:
            return self._index.search(queries, k, params=parameters)

    def _made(self, vectors: np.ndarray) -> Any:
        """Returns a new faiss index whose lists are learned from vectors."""
        faiss = self._faiss
        lists = self.num_lists or max(1, round(len(vectors) ** 0.5))
        lists = min(lists, len(vectors))
        rng = np.random.default_rng(0)
        sample = vectors
        if len(vectors) > _SAMPLE * lists:
            sample = vectors[rng.choice(len(vectors), _SAMPLE * lists, replace=False)]
        quantizer = faiss.IndexFlatIP(self.emb_dim)
        inner = faiss.METRIC_INNER_PRODUCT
        if self.num_codes is None:
            index = faiss.IndexIVFFlat(quantizer, self.emb_dim, lists, inner)
        else:
            # 256 centroids a code, or what the vectors allow.
            bits = min(8, max(1, int(np.log2(len(sample)))))
            index = faiss.IndexIVFPQ(quantizer, self.emb_dim, lists, self.num_codes, bits, inner)
        index.cp.min_points_per_centroid = 1  # small catalogues are no cause for a warning
        if self.num_codes is not None:
            index.pq.cp.min_points_per_centroid = 1
        index.train(np.ascontiguousarray(sample))
        return index

    def save(self, path: str | os.PathLike[str]) -> None:
        about = {"emb_dim": self.emb_dim, "probes": self.probes, "num_codes": self.num_codes}
        written = b"" if self._index is None else self._faiss.serialize_index(self._index).tobytes()
        with open(path, "wb") as file:
            file.write(json.dumps(about).encode() + b"\n" + written)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ApproximateIndex":
        """Reads what `save` wrote.

        Raises:
            ImportError: If the extra `[faiss]` is not installed.
            SavedModelError: If the file is missing or damaged.
        """
        try:
            with open(path, "rb") as file:
                index = cls(**json.loads(file.readline()))
                written = np.frombuffer(file.read(), np.uint8)
            if len(written):
                index._index = index._faiss.deserialize_index(written)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise SavedModelError(f"{os.fspath(path)} holds no index: {error}") from error
        return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "Approximate search needs faiss: pip install 'tfrec-llm[faiss]'."
        ) from error
    return faiss
