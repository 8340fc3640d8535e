"""The TensorFlow graph of an exported model: raw ids in, raw ids out."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_llm.data.vocabulary import NUM_RESERVED, PADDING, UNKNOWN, Vocabulary
from tfrec_llm.layers.item_embedding import ItemEmbedding

# Items scored at a time, a multiple of 64 as in `ProductScores`.
_WIDEST = 1 << 15
# The score of a place that no item fills: finite, as JSON has no infinity.
NO_SCORE = float(np.finfo(np.float32).min)

MODEL, POPULARITY = "model", "popularity"


class ServingGraph(tf.Module):
    """A behaviour model with its vocabulary, seen filter, exclusions and top-k as TensorFlow ops.

    Histories are dense `[n, length]` tensors of raw ids; `padding` may stand anywhere in them,
    and rows of different lengths are padded to one. A user whose history is empty is scored by
    how often items occur, as everywhere in the library.

    Args:
        model: A built `BehaviorModel` in float32.
        vocabulary: Its items, of strings or integers.
        kinds: Names of the kinds of behaviour that the model reads, in the order of its numbers.
        k: Items a user that the default signature recommends.
        filter_seen: Whether the default signature leaves out what the history holds.
        allowed: Bool `[items]`, what may be recommended; None for all.
        padding: The id that stands for nothing; not in the vocabulary.

    Example:
        >>> vocabulary = Vocabulary(["a", "b", "c"])
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=vocabulary.size, emb_dim=8)
        >>> model = tfrec_llm.models.NextBehaviorModel(encoder)
        >>> model.build()
        >>> graph = ServingGraph(model, vocabulary, k=2, padding="")
        >>> found = graph.recommend_default(tf.constant([["a", "b"]]))
        >>> found["items"].numpy().tolist()
        [[b'c', b'']]
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        *,
        kinds: tuple[str, ...] = (),
        k: int = 10,
        filter_seen: bool = True,
        allowed: np.ndarray | None = None,
        padding: Any,
    ):
        super().__init__(name="serving")
        # Past TensorFlow's own bookkeeping: it would save signatures of the model's layers, too.
        object.__setattr__(self, "_model", model)
        self._weights = [weight.value for weight in model.variables]
        self._num_items = len(vocabulary)
        self.has_kinds = bool(model.encoder.num_behaviors)
        self._default_k, self._default_filter = k, filter_seen
        ids = vocabulary.ids.to_pylist()
        self.id_dtype = tf.string if isinstance(padding, str) else tf.int64
        self.padding = tf.constant(padding, self.id_dtype)
        self._ids = tf.Variable([padding, *ids], trainable=False, dtype=self.id_dtype, name="ids")
        self._places = lookup_table(
            [padding, *ids],
            [PADDING, *range(NUM_RESERVED, vocabulary.size)],
            self.id_dtype,
            default=UNKNOWN,
        )
        self._kinds = lookup_table(
            kinds or [""], range(1, len(kinds or " ") + 1), tf.string, default=0
        )
        counts = vocabulary.counts.astype(np.float32)
        self._counts = tf.Variable(counts, trainable=False, name="counts")
        self._allowed = None
        if allowed is not None:
            self._allowed = tf.Variable(allowed, trainable=False, name="allowed")
        self._table = None
        if isinstance(model.output_layer, ItemEmbedding):
            if model.similarity == "dot":
                self._table = model.output_layer.table.value
            else:
                self._table = tf.Variable(model.item_vectors, trainable=False, name="vectors")
        self._make_functions()

    def _make_functions(self) -> None:
        def ids(name: str) -> tf.TensorSpec:
            return tf.TensorSpec([None, None], self.id_dtype, name=name)

        read = [ids("history")]
        if self.has_kinds:
            read.append(tf.TensorSpec([None, None], tf.string, name="behaviors"))
        per_user = [
            tf.TensorSpec([None], tf.int32, name="k"),
            tf.TensorSpec([None], tf.bool, name="filter_seen"),
        ]
        self.recommend = tf.function(
            self._recommend, input_signature=[*read, ids("exclude"), *per_user]
        )
        self.recommend_default = tf.function(
            self._recommend_default, input_signature=[ids("history")]
        )
        self.score = tf.function(self._score, input_signature=[*read, ids("items")])
        self.embed = tf.function(self._embed, input_signature=read)
        self.embed_items = tf.function(
            self._embed_items, input_signature=[tf.TensorSpec([None], self.id_dtype, name="items")]
        )

    @property
    def signatures(self) -> dict[str, Any]:
        """The functions to save, by the names that requests call them by."""
        return {
            "serving_default": self.recommend_default,
            "recommend": self.recommend,
            "score": self.score,
            "embed": self.embed,
            "embed_items": self.embed_items,
        }

    @property
    def resources(self) -> list[Any]:
        """What `embed` reads: a module that calls it saves these with it."""
        return [*self._weights, self._places, self._kinds]

    def _recommend(self, history, *rest):
        *behaviors, exclude, k, filter_seen = rest
        indexes = self._places.lookup(history)
        vectors, empty = self._read(indexes, *behaviors)
        seen = tf.where(filter_seen[:, None], indexes, PADDING)
        removed = tf.concat([seen, self._places.lookup(exclude)], axis=1)
        return self._best(vectors, empty, removed, k)

    def _recommend_default(self, history):
        rows = tf.shape(history)[0]
        rest = [
            tf.fill([rows, 0], self.padding),
            tf.fill([rows], self._default_k),
            tf.fill([rows], self._default_filter),
        ]
        if self.has_kinds:
            rest.insert(0, tf.fill(tf.shape(history), ""))
        return self._recommend(history, *rest)

    def _score(self, history, *rest):
        *behaviors, items = rest
        vectors, empty = self._read(self._places.lookup(history), *behaviors)
        indexes = self._places.lookup(items)
        scores = tf.einsum("nd,nmd->nm", vectors, self._vectors_of(indexes))
        scores = tf.where(empty[:, None], tf.gather(self._counts, indexes), scores)
        known = indexes >= NUM_RESERVED
        return {
            "scores": tf.where(known, scores, NO_SCORE),
            "known": known,
            "source": _source(empty),
        }

    def _embed(self, history, *behaviors):
        vectors, empty = self._read(self._places.lookup(history), *behaviors)
        return {"embeddings": tf.where(empty[:, None], 0.0, vectors), "source": _source(empty)}

    def _embed_items(self, items):
        indexes = self._places.lookup(items)
        known = indexes >= NUM_RESERVED
        vectors = self._vectors_of(indexes)
        return {"embeddings": tf.where(known[:, None], vectors, 0.0), "known": known}

    def _read(self, indexes, behaviors=None):
        """Returns users' vectors `[n, emb_dim]`, and bool `[n]`, whose history is empty."""
        kinds = self._kinds.lookup(behaviors) if self.has_kinds else None
        batch = newest_behaviors(indexes, kinds, self._model.encoder.max_length)
        vectors = self._model(self._model.asking(batch), training=False)[:, 0]
        return vectors, tf.logical_not(tf.reduce_any(batch["segments"] > 0, axis=1))

    def _best(self, vectors, empty, removed, k):
        """Returns the best items of every row, in blocks of items."""
        rows = tf.shape(vectors)[0]
        width = tf.clip_by_value(tf.reduce_max(tf.maximum(k, 0)), 0, self._num_items)
        best_scores = tf.fill([rows, width], -np.inf)
        best_items = tf.fill([rows, width], -1)
        whole = self._num_items // _WIDEST

        def step(block, best_scores, best_items):
            first = block * _WIDEST
            scores = self._block(vectors, empty, removed, first, _WIDEST)
            return (block + 1, *_merged(best_scores, best_items, scores, first, width))

        _, best_scores, best_items = tf.while_loop(
            lambda block, *_: block < whole,
            step,
            (tf.constant(0), best_scores, best_items),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, None]),
            ),
            parallel_iterations=1,
        )
        if self._num_items % _WIDEST:
            first = whole * _WIDEST
            scores = self._block(vectors, empty, removed, first, self._num_items - first)
            best_scores, best_items = _merged(best_scores, best_items, scores, first, width)
        found = (best_scores > -np.inf) & (tf.range(width)[None] < k[:, None])
        return {
            "items": tf.gather(self._ids, tf.where(found, best_items + 1, 0)),
            "scores": tf.where(found, best_scores, NO_SCORE),
            "source": _source(empty),
        }

    def _block(self, vectors, empty, removed, first, count: int):
        """Returns scores `[n, count]` of the items from `first` on; `-inf` where removed."""
        start = first + NUM_RESERVED
        if self._table is not None:
            items = self._table[start : start + count]
        else:
            items = self._model.vectors_of(tf.range(start, start + count))
        # Equal vectors get equal scores only where the product's width is a multiple of 64.
        items = tf.pad(items, [[0, -count % 64], [0, 0]]) if count % 64 else items
        scores = tf.matmul(vectors, items, transpose_b=True)[:, :count]
        scores = tf.where(empty[:, None], self._counts[start : start + count][None], scores)
        if self._allowed is not None:
            scores = tf.where(self._allowed[first : first + count][None], scores, -np.inf)
        columns = removed - start
        here = tf.where((columns >= 0) & (columns < count) & (removed >= NUM_RESERVED))
        places = tf.stack([tf.cast(here[:, 0], tf.int32), tf.gather_nd(columns, here)], axis=1)
        return tf.tensor_scatter_nd_update(scores, places, tf.fill([tf.shape(places)[0]], -np.inf))

    def _vectors_of(self, indexes):
        if self._table is not None:
            return tf.gather(self._table, indexes)
        return self._model.vectors_of(indexes)


def _merged(best_scores, best_items, scores, first, width):
    """Returns the best of what there is and a block, `[n, width]`; earlier items win ties."""
    in_block, places = tf.math.top_k(scores, tf.minimum(width, tf.shape(scores)[1]))
    all_scores = tf.concat([best_scores, in_block], axis=1)
    all_items = tf.concat([best_items, places + first], axis=1)
    best_scores, chosen = tf.math.top_k(all_scores, width)
    return best_scores, tf.gather(all_items, chosen, batch_dims=1)


def newest_behaviors(indexes, kinds, max_length: int):
    """Returns the batch of histories, a user a row, whose newest behaviour stands on the right.

    Args:
        indexes: int32 `[n, length]`, of items; padding may stand anywhere.
        kinds: int32 `[n, length]`, of behaviours; None where the model reads none.
        max_length: Newest behaviours that are read.
    """
    # One place more on the left, so that none of the shapes below is empty.
    indexes = tf.pad(indexes, [[0, 0], [1, 0]], constant_values=PADDING)
    present = indexes != PADDING
    # The newest behaviours stand on the right, without gaps.
    order = tf.argsort(tf.cast(present, tf.int32), axis=1, stable=True)[:, -max_length:]
    one = tf.cast(tf.gather(present, order, batch_dims=1), tf.int32)
    batch = {
        "items": tf.gather(indexes, order, batch_dims=1) * one,
        "segments": one,
        "positions": (tf.cumsum(one, axis=1, reverse=True) - one) * one,
    }
    if kinds is not None:
        kinds = tf.pad(kinds, [[0, 0], [1, 0]])
        batch["behaviors"] = tf.gather(kinds, order, batch_dims=1) * one
    return batch


def lookup_table(keys, values, dtype, *, default: int):
    """Returns a table that gives int32 for keys, and `default` for others."""
    initializer = tf.lookup.KeyValueTensorInitializer(
        tf.constant(list(keys), dtype), tf.constant(list(values), tf.int32)
    )
    return tf.lookup.StaticHashTable(initializer, default)


def _source(empty):
    return tf.where(empty, POPULARITY, MODEL)
