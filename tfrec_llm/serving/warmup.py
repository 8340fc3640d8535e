"""Requests that TensorFlow Serving runs through a model before it takes traffic."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

# Where TensorFlow Serving looks for them.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

# Numbers of the fields in tensorflow_serving/apis: PredictionLog.predict_log, PredictLog.request,
# PredictRequest.model_spec and .inputs, ModelSpec.name and .signature_name.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS = 1, 2
_NAME, _SIGNATURE_NAME = 1, 3
_KEY, _VALUE = 1, 2


def write_warmup(
    folder: Path, model_name: str, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]
) -> None:
    """Writes warm-up requests into the folder of a SavedModel.

    They are records of `PredictionLog` messages, which are written out here by hand: the package
    that holds these messages, tensorflow-serving-api, is tied to single versions of TensorFlow.

    Args:
        folder: Of the SavedModel.
        model_name: The name that the model is served by.
        requests: Names of signatures and their inputs.

    Reference:
        https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(prediction_log(model_name, signature, inputs))


def prediction_log(model_name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns a `PredictionLog` of one request, as bytes.

    Args:
        model_name: The name that the model is served by.
        signature: Name of the signature.
        inputs: Arrays by the names of the signature's inputs.
    """
    spec = _field(_NAME, model_name.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
