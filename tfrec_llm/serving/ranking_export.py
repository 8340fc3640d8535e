"""Writing a ranking model as a SavedModel that takes raw ids."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import tfrec_llm
from tfrec_llm.data.atomic import replace_folder
from tfrec_llm.data.vocabulary import Vocabulary
from tfrec_llm.errors import SavedModelError
from tfrec_llm.layers.compressed_table import CompressedTable
from tfrec_llm.models.replaced_tables import ranking_with_table
from tfrec_llm.serving.export import PRECISIONS, item_padding
from tfrec_llm.serving.version_folder import DESCRIPTION, version_folder

if TYPE_CHECKING:
    from tfrec_llm.data.feature_encoding import FeatureEncoding
    from tfrec_llm.models.ranking_model import RankingModel

RANKING_FORMAT = "tfrec_llm.ranking_export.1"


def export_ranking_model(
    model: "RankingModel",
    path: str | os.PathLike[str],
    vocabulary: Vocabulary,
    *,
    candidates: Vocabulary | None = None,
    profiles: Vocabulary | None = None,
    context: "FeatureEncoding | None" = None,
    behaviors: tuple[str, ...] | list[str] = (),
    max_length: int | None = None,
    histories: str | None = None,
    rank_by: str | None = None,
    precision: str = "float32",
) -> Path:
    """Writes a model of clicks or conversions as a SavedModel that takes raw ids.

    The probabilities are those that `predict` gives of `ranking_batches` made with the same
    arguments. Its signatures take a user a row: `history` `[n, length]`, the raw ids of what the
    user did, oldest first; `behaviors`, their kinds, where the model reads them; `candidates`
    `[n, m]`, what is shown; `user` `[n]` where the model reads profiles; and `context_NAME`
    `[n, m]`, raw values: strings, numbers, or seconds since 1970. Rows are filled with the padding
    that `assets.extra/tfrec_llm.json` names, context with the empty string or NaN.

    - `score`, which is the default, gives `probabilities` `[n, m]`, or one such output a task, and
      `known`, whether the candidate is in the vocabulary.
    - `recommend` takes `k` `[n]`, too, and gives the same of the best candidates alone, the best
      first, and `items`, their raw ids; places that nothing fills hold the padding.
    - `embed` takes `history` and `behaviors`, and gives `embeddings` `[n, emb_dim]`, the encoder's
      state behind them: zeros where the history is empty.

    Args:
        model: A trained model.
        path: Folder of the version, whose name is a number; or of the model, in which the next
            version is written. It is there whole or not at all.
        vocabulary: Of the items of the histories.
        candidates: Of the items shown; None for `vocabulary`.
        profiles: Of the users, for models with a `user_embedding`.
        context: Fitted encoding of the context, for models that read it.
        behaviors: Names of the kinds of behaviour in the order of their numbers, such as
            `batches.sequences.behavior_vocabulary`, for models that read them.
        max_length: Newest behaviours that are read; None for the encoder's.
        histories: `"own"` or `"masked"`, as the model was trained; None for `"own"` of causal
            encoders and `"masked"` of others.
        rank_by: Output by which `recommend` ranks, such as `"conversion"`; None for the first.
        precision: Of the vectors of the encoder's items: `"float32"`, `"float16"` or `"int8"`.

    Returns:
        Folder of the version.

    Raises:
        ValueError: If vocabularies, encoding, `rank_by` or `precision` do not fit the model.
        SavedModelError: If it cannot be written, or the folder holds something else.

    Example:
        >>> vocabulary = Vocabulary(["a", "b", "c"])
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=vocabulary.size, emb_dim=8)
        >>> model = tfrec_llm.models.ClickModel(encoder)
        >>> model.build()
        >>> import tempfile
        >>> folder = export_ranking_model(model, f"{tempfile.mkdtemp()}/clicks", vocabulary)
        >>> folder.name
        '1'
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Models are exported by TensorFlow, but Keras runs on {keras.backend.backend()}."
        )
    if not model.built:
        model.build()
    if histories is None:
        histories = "own" if model.encoder.causal else "masked"
    if histories not in ("own", "masked"):
        raise ValueError(f"histories must be 'own' or 'masked', got {histories!r}.")
    _check(model, vocabulary, candidates, profiles, context, behaviors)
    outputs = _outputs(model)
    rank_by = outputs[0] if rank_by is None else rank_by
    if rank_by not in outputs:
        raise ValueError(f"rank_by must be one of {outputs}, got {rank_by!r}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}.")
    if precision != "float32":
        model = ranking_with_table(
            model, lambda layer: CompressedTable.of_layer(layer, kind=precision)
        )
    max_length = model.encoder.max_length if max_length is None else max_length
    folder = version_folder(Path(path))

    import tensorflow as tf

    from tfrec_llm.serving.ranking_graph import RankingGraph, RawIds
    from tfrec_llm.serving.warmup import write_warmup

    def raw(ids: Vocabulary) -> RawIds:
        return RawIds(ids, item_padding(ids))

    items, shown = raw(vocabulary), raw(candidates or vocabulary)
    users = None if profiles is None else raw(profiles)
    graph = RankingGraph(
        model,
        items=items,
        candidates=shown,
        users=users,
        context=context,
        kinds=tuple(behaviors),
        max_length=max_length,
        masked=histories == "masked",
        rank_by=rank_by,
    )
    description = {
        "format": RANKING_FORMAT,
        "tfrec_llm": tfrec_llm.__version__,
        "model": type(model).__name__,
        "padding": {
            "history": items.padding,
            "candidates": shown.padding,
            "user": None if users is None else users.padding,
        },
        "behaviors": list(behaviors) if model.encoder.num_behaviors else None,
        "context": [] if context is None else [spec.get_config() for spec in context.specs],
        "max_length": max_length,
        "histories": histories,
        "rank_by": rank_by,
        "precision": precision,
    }
    try:
        with replace_folder(folder) as temporary:
            tf.saved_model.save(graph, str(temporary), signatures=graph.signatures)
            write_warmup(temporary, folder.parent.name, _requests(graph.signatures))
            (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))
    except OSError as error:
        raise SavedModelError(
            f"The model could not be exported to {folder}: {error}. What was there before is "
            "unchanged."
        ) from error
    return folder


def _check(
    model: Any,
    vocabulary: Vocabulary,
    candidates: Vocabulary | None,
    profiles: Vocabulary | None,
    context: "FeatureEncoding | None",
    behaviors: Any,
) -> None:
    """Refuses what does not belong to the model."""
    for name, found, size in (
        ("vocabulary", vocabulary, model.encoder.vocab_size),
        ("candidates", candidates or vocabulary, getattr(model.item_layer, "vocab_size", None)),
        ("profiles", profiles, getattr(model.user_embedding, "vocab_size", None)),
    ):
        if found is not None and size is not None and found.size != size:
            raise ValueError(
                f"The model was made for {size} indexes of {name}, and {found.size} are given: "
                "they do not belong together."
            )
    if (profiles is None) != (model.user_embedding is None):
        raise ValueError("profiles go with models that have a user_embedding, and only with them.")
    read = [] if model.context is None else [spec.get_config() for spec in model.context.specs]
    given = [] if context is None else [spec.get_config() for spec in context.specs]
    if read != given:
        names = [[spec["name"] for spec in specs] for specs in (read, given)]
        raise ValueError(
            f"The model reads the context {names[0]} as it was encoded in training, and an "
            f"encoding of {names[1]} is given that is not the same."
        )
    if len(behaviors) != model.encoder.num_behaviors:
        raise ValueError(
            f"The model reads {model.encoder.num_behaviors} kinds of behaviour, and "
            f"{len(behaviors)} are named."
        )


def _outputs(model: Any) -> list[str]:
    """Returns the names of a model's probabilities, as the graph calls them."""
    candidates = keras.KerasTensor((None, None), dtype="int32")
    found = model.compute_output_spec({"candidates": candidates})
    return list(found) if isinstance(found, dict) else ["probabilities"]


def _requests(signatures: dict[str, Any]) -> Any:
    """Yields requests of every signature, of one user and of many, of short and long lists."""
    for rows, length in ((1, 8), (1, 64), (8, 32)):
        for name, function in signatures.items():
            inputs = {}
            for spec in function.input_signature:
                shape = [rows, length, *(size or 1 for size in spec.shape[2:])][: len(spec.shape)]
                dtype = object if spec.dtype.name == "string" else spec.dtype.as_numpy_dtype
                value: Any = "" if dtype is object else 0
                # As many items are listed as there are candidates.
                inputs[spec.name] = np.full(shape, length if spec.name == "k" else value, dtype)
            yield name, inputs
