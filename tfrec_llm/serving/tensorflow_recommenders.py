"""For shops that serve with TensorFlow Recommenders: its indices over a model's item vectors."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import NotFittedError, SavedModelError
from tfrec_llm.serving.export import item_padding, kinds_of, model_for_serving
from tfrec_llm.serving.graph import NO_SCORE, POPULARITY, ServingGraph
from tfrec_llm.serving.version_folder import version_folder

if TYPE_CHECKING:
    from tfrec_llm.evaluation.model_scorer import ModelScorer
    from tfrec_llm.recommender import Recommender

INDEXES = ("brute_force", "streaming")
_BLOCK = 4096


def recommenders_index(
    scorer: "Recommender | ModelScorer", *, kind: str = "brute_force", k: int = 10
) -> Any:
    """Returns an index of TensorFlow Recommenders that holds the item vectors of a fitted model.

    It takes users' vectors, as `ExportedModel.embed` gives them, and returns scores and raw ids.
    TensorFlow Recommenders needs Keras 2 as `tf.keras`, which does not keep this library from
    running on Keras 3: set `TF_USE_LEGACY_KERAS=1` before TensorFlow is imported.

    Args:
        scorer: A fitted `Recommender`, or a `ModelScorer`.
        kind: `"brute_force"`, or `"streaming"`, which goes through the items in blocks.
        k: Items it returns where a call names no number.

    Returns:
        A `tfrs.layers.factorized_top_k.BruteForce` or `Streaming`.

    Raises:
        ImportError: If the extra `[tfrs]` is not installed, or `tf.keras` is Keras 3.
        NotFittedError: If the model is not fitted.
        ValueError: If `kind` has an unknown name or the ids are neither strings nor integers.
    """
    if kind not in INDEXES:
        raise ValueError(f"kind must be one of {INDEXES}, got {kind!r}.")
    if scorer.model is None:
        raise NotFittedError("This Recommender is not fitted: call fit() or load().")
    layers = _recommenders()
    item_padding(scorer.vocabulary)  # says so where the ids are of no type that can be served
    count = len(scorer.vocabulary)
    ids = tf.constant(scorer.vocabulary.ids.to_pylist())
    indexes = np.arange(NUM_RESERVED, NUM_RESERVED + count, dtype=np.int32)
    vectors = tf.constant(np.asarray(scorer.model.vectors_of(indexes), np.float32))
    k = min(k, count)
    if kind == "brute_force":
        return layers.BruteForce(k=k).index(vectors, ids)
    blocks = tf.data.Dataset.from_tensor_slices((ids, vectors)).batch(_BLOCK)
    return layers.Streaming(k=k).index_from_dataset(blocks)


def export_with_recommenders(
    scorer: "Recommender | ModelScorer",
    path: str | os.PathLike[str],
    *,
    index: str = "brute_force",
    k: int = 10,
    filter_seen: bool = True,
) -> Path:
    """Writes encoder and index of TensorFlow Recommenders as one SavedModel.

    Its default signature takes histories as those of `export_model` do, string or integer ids
    `[users, length]`, and gives `items`, `scores` and `source`. TensorFlow alone serves it.

    Args:
        scorer: A fitted `Recommender`, or a `ModelScorer`.
        path: Folder of the version, or of the model, as in `export_model`.
        index: See `recommenders_index`.
        k: Items a user.
        filter_seen: Whether to leave out what a history holds.

    Returns:
        Folder of the version.

    Raises:
        ImportError: See `recommenders_index`.
        NotFittedError: If the model is not fitted.
        SavedModelError: If it cannot be written.
        ValueError: If an option does not fit.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}.")
    found = recommenders_index(scorer, kind=index, k=k)
    folder = version_folder(Path(path))
    model = model_for_serving(scorer)
    graph = ServingGraph(
        model,
        scorer.vocabulary,
        kinds=kinds_of(scorer),
        k=k,
        filter_seen=filter_seen,
        padding=item_padding(scorer.vocabulary),
    )
    module = _Module(graph, found, scorer.vocabulary, k=k, filter_seen=filter_seen)
    try:
        with replace_folder(folder) as temporary:
            tf.saved_model.save(module, str(temporary), signatures=module.recommend)
    except OSError as error:
        raise SavedModelError(
            f"The model could not be exported to {folder}: {error}. What was there before is "
            "unchanged."
        ) from error
    return folder


class _Module(tf.Module):
    """A history's vector by our graph, its items by their index."""

    def __init__(
        self, graph: ServingGraph, index: Any, vocabulary: Vocabulary, *, k: int, filter_seen: bool
    ):
        super().__init__(name="recommenders")
        # Past TensorFlow's own bookkeeping: it would save the graph's own signatures, too.
        object.__setattr__(self, "_graph", graph)
        self._resources = graph.resources
        self._index, self._num_items = index, len(vocabulary)
        self._k, self._filter_seen = k, filter_seen
        counts = vocabulary.counts.astype(np.float32)
        order = NUM_RESERVED + np.argsort(-counts[NUM_RESERVED:], kind="stable")[:k]
        self._popular = tf.constant(vocabulary.decode(order).tolist(), graph.id_dtype)
        self._counts = tf.constant(counts[order])
        read = [tf.TensorSpec([None, None], graph.id_dtype, name="history")]
        if graph.has_kinds:
            read.append(tf.TensorSpec([None, None], tf.string, name="behaviors"))
        self.recommend = tf.function(self._recommend, input_signature=read)

    def _recommend(self, history, *behaviors):
        user = self._graph.embed(history, *behaviors)
        # So many that enough are left when those of the history are gone.
        wanted = self._k + (tf.shape(history)[1] if self._filter_seen else 0)
        scores, items = self._index(user["embeddings"], k=tf.minimum(wanted, self._num_items))
        if self._filter_seen:
            seen = tf.reduce_any(items[:, :, None] == history[:, None], axis=-1)
            scores = tf.where(seen, -np.inf, scores)
        scores, places = tf.math.top_k(scores, tf.minimum(self._k, tf.shape(scores)[1]))
        items = tf.gather(items, places, batch_dims=1)
        left = scores > -np.inf
        empty = (user["source"] == POPULARITY)[:, None]
        items = tf.where(left, items, self._graph.padding)
        return {
            "items": tf.where(empty, self._popular, items),
            "scores": tf.where(empty, self._counts, tf.where(left, scores, NO_SCORE)),
            "source": user["source"],
        }


def _recommenders() -> Any:
    """Returns the module of the indices."""
    if tf.keras.Model is keras.Model:
        raise ImportError(
            "TensorFlow Recommenders needs Keras 2 as tf.keras: set TF_USE_LEGACY_KERAS=1 in the "
            "environment before TensorFlow is imported. tfrec_llm runs on Keras 3 all the same."
        )
    try:
        from tensorflow_recommenders.layers import factorized_top_k
    except ImportError as error:
        raise ImportError(
            "This index is TensorFlow Recommenders': pip install 'tfrec-llm[tfrs]'."
        ) from error
    return factorized_top_k
