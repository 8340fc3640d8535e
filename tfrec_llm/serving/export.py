"""Writing a trained model as a SavedModel that TensorFlow Serving loads as it stands."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pyarrow as pa

import tfrec_llm
from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import NotFittedError, SavedModelError
from tfrec_llm.layers.item_embedding import ItemEmbedding
from tfrec_llm.models.replaced_tables import with_tables
from tfrec_llm.serving.onnx_export import write_onnx
from tfrec_llm.serving.profile_counts import ProfileCounts
from tfrec_llm.serving.snapshot import TrainingSnapshot
from tfrec_llm.serving.version_folder import (
    DESCRIPTION,
    EXTRA,
    FORMAT,
    INDEX,
    SNAPSHOT,
    version_folder,
)

if TYPE_CHECKING:
    from tfrec_llm.data.feature_table import UserTable
    from tfrec_llm.evaluation.model_scorer import ModelScorer
    from tfrec_llm.recommender import Recommender
    from tfrec_llm.serving.item_index import ItemIndex

FORMATS = ("tf_saved_model", "onnx")
INDEXES = ("exact", "approximate", "product")
PRECISIONS = ("float32", "float16", "int8")

_PADDINGS: dict[str, tuple[Any, ...]] = {
    "string": ("", "<pad>", "\x00<pad>"),
    "int64": (-1, -(2**63)),
}


def export_model(
    scorer: "Recommender | ModelScorer",
    path: str | os.PathLike[str],
    *,
    k: int = 10,
    filter_seen: bool = True,
    candidates: Any = None,
    exclude: Any = None,
    precision: str = "float32",
    profiles: "UserTable | None" = None,
    index: str = "exact",
    snapshot_since: int | None = None,
    format: str = "tf_saved_model",
) -> Path:
    """Writes a fitted model for serving; see `Recommender.export`.

    Args:
        scorer: A fitted `Recommender`, or a `ModelScorer` or `CompressedScorer`.
        path: Folder of the version, whose name is a number; or of the model, in which the next
            version is written.
        k: Items a user that the default signature recommends.
        filter_seen: Whether the default signature leaves out what a history holds.
        candidates: Raw ids that alone may be recommended; None for all.
        exclude: Raw ids never to recommend.
        precision: Of the items' vectors: `"float32"`, `"float16"` or `"int8"`.
        profiles: What is known of the users whose histories the scorer holds: counted, so that a
            server can rank for a new user by the profile alone.
        index: How `ExportedModel` and the server find the best items: `"exact"`, by the graph;
            `"approximate"` or `"product"`, by an `ApproximateIndex` of vectors or of codes, with
            the extra `[faiss]`. The signatures are exact.
        snapshot_since: First moment of the behaviours that monitoring takes for normal, see
            `TrainingSnapshot.of`; None for all.
        format: `"tf_saved_model"`; or `"onnx"`, with the extra `[onnx]`: a file that takes int32
            histories `[users, length]` of indexes and gives scores `[users, items]`. Of the
            options above `precision` alone goes with it.

    Returns:
        Folder of the version, or the file.

    Raises:
        NotFittedError: If the model is not fitted.
        SavedModelError: If it cannot be written, or the folder holds something else.
        UnknownItemError: If a candidate is not in the vocabulary.
        DataError: If no feature of the profiles can be counted.
        ValueError: If an option does not fit.

    Example:
        >>> vocabulary = tfrec_llm.data.Vocabulary(["a", "b", "c"])
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=vocabulary.size, emb_dim=8)
        >>> model = tfrec_llm.models.NextBehaviorModel(encoder)
        >>> model.build()
        >>> scorer = tfrec_llm.evaluation.ModelScorer(model, vocabulary)
        >>> import tempfile
        >>> export_model(scorer, f"{tempfile.mkdtemp()}/shop").name
        '1'
    """
    if scorer.model is None:
        raise NotFittedError("This Recommender is not fitted: call fit() or load().")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Models are exported by TensorFlow, but Keras runs on "
            f"{keras.backend.backend()}. Save the model, and export it in a process with "
            "KERAS_BACKEND=tensorflow."
        )
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}.")
    if index not in INDEXES:
        raise ValueError(f"index must be one of {INDEXES}, got {index!r}.")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {FORMATS}, got {format!r}.")
    vocabulary = scorer.vocabulary
    kinds = kinds_of(scorer)
    if format == "onnx":
        if candidates is not None or exclude is not None or profiles is not None:
            raise ValueError("candidates, exclude and profiles do not go with ONNX.")
        model = model_for_serving(scorer, precision)
        description = _description(model, scorer, kinds) | {"precision": precision}
        write_onnx(model, scorer, Path(path), description=description)
        return Path(path)
    folder = version_folder(Path(path))
    padding = item_padding(vocabulary)
    model = model_for_serving(scorer, precision)
    allowed = _allowed(vocabulary, candidates, exclude)
    search = None if index == "exact" else _index(model, allowed, index)
    counts = None
    if profiles is not None:
        if scorer.histories is None:
            raise NotFittedError("No users are known, so that their profiles tell nothing.")
        counts = ProfileCounts.fit(scorer.histories, len(vocabulary), profiles)
    snapshot = None
    if scorer.histories is not None:
        snapshot = TrainingSnapshot.of(
            scorer,
            since=snapshot_since,
            filter_seen=filter_seen,
            candidates=candidates,
            exclude=exclude,
        )

    import tensorflow as tf

    from tfrec_llm.serving.graph import ServingGraph
    from tfrec_llm.serving.warmup import write_warmup

    graph = ServingGraph(
        model,
        vocabulary,
        kinds=kinds,
        k=k,
        filter_seen=filter_seen,
        allowed=allowed,
        padding=padding,
    )
    description = _description(model, scorer, kinds) | {
        "format": FORMAT,
        "padding": padding,
        "k": k,
        "filter_seen": filter_seen,
        "precision": precision,
        "index": index,
    }
    try:
        with replace_folder(folder) as temporary:
            tf.saved_model.save(graph, str(temporary), signatures=graph.signatures)
            write_warmup(temporary, folder.parent.name, _requests(description, vocabulary))
            vocabulary.save(temporary / EXTRA / "vocabulary.parquet")
            if scorer.catalogue is not None:
                scorer.catalogue.save(temporary / EXTRA / "catalogue.parquet")
            if allowed is not None:
                np.save(temporary / EXTRA / "allowed.npy", allowed)
            if search is not None:
                search.save(temporary / EXTRA / INDEX)
            if counts is not None:
                counts.save(temporary / EXTRA / "profiles.parquet")
            if snapshot is not None:
                snapshot.save(temporary / EXTRA / SNAPSHOT)
            (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))
    except OSError as error:
        raise SavedModelError(
            f"The model could not be exported to {folder}: {error}. What was there before is "
            f"unchanged. Free on this disk: {_free(folder.parent)}."
        ) from error
    return folder


def kinds_of(scorer: "Recommender | ModelScorer") -> tuple[str, ...]:
    """Returns the kinds of behaviour that a model reads, in the order of their numbers."""
    if scorer.model is None or not scorer.model.encoder.num_behaviors or scorer.histories is None:
        return ()
    return tuple(scorer.histories.behavior_vocabulary)


def _description(model: Any, scorer: Any, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Returns what is to be known of every export."""
    return {
        "tfrec_llm": tfrec_llm.__version__,
        "model": type(model).__name__,
        "items": len(scorer.vocabulary),
        "id_type": str(scorer.vocabulary.ids.type),
        "behaviors": list(kinds) if model.encoder.num_behaviors else None,
        "emb_dim": model.encoder.emb_dim,
        "max_length": model.encoder.max_length,
    }


def model_for_serving(scorer: Any, precision: str = "float32") -> Any:
    """Returns a model that reads items from tables alone, whatever they were trained with."""
    if precision != "float32":
        from tfrec_llm.evaluation.compressed_scorer import CompressedScorer

        return CompressedScorer.of(scorer, kind=precision).model
    model = scorer.model
    tables = [model.encoder.item_embedding, model.output_layer]
    if all(getattr(table, "features", None) is None for table in tables):
        return model

    def plain(layer: Any) -> ItemEmbedding:
        # What features add is added once and for all.
        table = ItemEmbedding(
            layer.vocab_size, layer.emb_dim, dtype=layer.dtype_policy, name=layer.name
        )
        table.build((None,))
        table.table.assign(layer.all_rows())
        return table

    return with_tables(model, plain)


def item_padding(vocabulary: Vocabulary) -> Any:
    """Returns an id that stands for nothing.

    Raises:
        ValueError: If ids are neither strings nor integers.
    """
    kind = str(vocabulary.ids.type)
    if kind not in _PADDINGS:
        raise ValueError(f"Item ids are strings or integers where a model is exported, not {kind}.")
    return next(one for one in _PADDINGS[kind] if one not in vocabulary)


def _allowed(vocabulary: Vocabulary, candidates: Any, exclude: Any) -> np.ndarray | None:
    """Returns bool `[items]`, what may be recommended; None for all."""
    if candidates is None and exclude is None:
        return None
    allowed = np.ones(vocabulary.size, bool)
    if candidates is not None:
        allowed[:] = False
        allowed[vocabulary.encode(candidates)] = True
    if exclude is not None:
        allowed[vocabulary.encode(exclude, on_unknown="ignore")] = False
    return allowed[vocabulary.size - len(vocabulary) :]


def _index(model: Any, allowed: np.ndarray | None, kind: str) -> "ItemIndex":
    """Returns an index of the items that may be recommended, counted from the first."""
    from tfrec_llm.serving.approximate_index import ApproximateIndex

    width = model.encoder.emb_dim
    codes = None
    if kind == "product":  # a code for four numbers, or for more where that does not go up
        codes = next(codes for codes in range(max(1, width // 4), 0, -1) if width % codes == 0)
    index = ApproximateIndex(width, num_codes=codes)
    count = model.encoder.vocab_size - NUM_RESERVED
    items = np.arange(count) if allowed is None else np.flatnonzero(allowed)
    index.add(items, np.asarray(model.vectors_of((items + NUM_RESERVED).astype(np.int32))))
    return index


def _requests(description: dict[str, Any], vocabulary: Vocabulary) -> Any:
    """Yields requests of every signature, of one user and of many, with short and long lists."""
    dtype: Any = object if pa.types.is_string(vocabulary.ids.type) else np.int64
    known = np.array(vocabulary.ids[:64].to_pylist() or [description["padding"]], dtype)
    for rows, length in ((1, 8), (1, 64), (32, 32)):
        history = np.resize(known, (rows, length))
        read = {"history": history}
        if description["behaviors"] is not None:
            read["behaviors"] = np.full(history.shape, "", object)
        yield "serving_default", {"history": history}
        yield (
            "recommend",
            read
            | {
                "exclude": history[:, :1],
                "k": np.full(rows, description["k"], np.int32),
                "filter_seen": np.full(rows, description["filter_seen"]),
            },
        )
        yield "score", read | {"items": history}
        yield "embed", read
        yield "embed_items", {"items": history[0]}


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder if folder.exists() else '.').free / 1e6:,.0f} MB"
