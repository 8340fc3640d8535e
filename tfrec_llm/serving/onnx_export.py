"""A model as an ONNX file: scores without TensorFlow."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.data.vocabulary import NUM_RESERVED, PADDING, UNKNOWN
from tfrec_llm.errors import SavedModelError

_OPSET = 17


def write_onnx(model: Any, scorer: Any, path: Path, *, description: dict[str, Any]) -> None:
    """Writes a model that gives the scores of all items; see `Recommender.export`.

    Args:
        model: A `BehaviorModel` whose items come from tables alone.
        scorer: Whose vocabulary it belongs to.
        path: The file.
        description: What is to be known of it, JSON-able.

    Raises:
        ImportError: If the extra `[onnx]` is not installed.
        SavedModelError: If the file cannot be written.
    """
    try:
        import tf2onnx
    except ImportError as error:
        raise ImportError("ONNX needs its converter: pip install 'tfrec-llm[onnx]'.") from error
    import tensorflow as tf

    vocabulary = scorer.vocabulary
    max_length = model.encoder.max_length
    counts = vocabulary.counts[None, NUM_RESERVED:].astype(np.float32)
    names = ["history"] + ["behaviors"] * bool(model.encoder.num_behaviors)
    signature = [tf.TensorSpec([None, None], tf.int32, name=name) for name in names]

    def scores(history, behaviors=None):
        # A place more on the left, so that there is one when the history is empty.
        history = tf.pad(history, [[0, 0], [1, 0]], constant_values=PADDING)
        present = tf.cast(history != PADDING, tf.int32)
        positions = tf.cumsum(present, axis=1, reverse=True) - present
        present *= tf.cast(positions < max_length, tf.int32)
        batch = {
            "items": history * present,
            "segments": present,
            "positions": positions * present,
        }
        if behaviors is not None:
            batch["behaviors"] = tf.pad(behaviors, [[0, 0], [1, 0]]) * present
        found = model(batch, training=False)[:, NUM_RESERVED:]
        empty = tf.reduce_max(present, axis=1, keepdims=True) == 0
        return {"scores": tf.where(empty, tf.constant(counts), found)}

    function = tf.function(scores, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=_OPSET)
    about = description | {
        "ids": vocabulary.ids.to_pylist(),
        "first_index": NUM_RESERVED,
        "padding": PADDING,
        "unknown": UNKNOWN,
    }
    entry = proto.metadata_props.add()
    entry.key, entry.value = "tfrec_llm", json.dumps(about)
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(proto.SerializeToString())
    except OSError as error:
        raise SavedModelError(
            f"The model could not be exported to {os.fspath(path)}: {error}. What was there before "
            "is unchanged."
        ) from error
