"""Requests that TensorFlow Serving runs through a model before it takes traffic."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

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


def read_warmup(folder: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yields the warm-up requests of a SavedModel: names of signatures and their inputs.

    Args:
        folder: Of the SavedModel.
    """
    path = folder / WARMUP_FILE
    if not path.exists():
        return
    for record in tf.data.TFRecordDataset(str(path), buffer_size=1 << 18).as_numpy_iterator():
        request = _fields(_fields(record)[_PREDICT_LOG][0])[_REQUEST][0]
        parts = _fields(request)
        inputs = {}
        for entry in parts.get(_INPUTS, []):
            pair = _fields(entry)
            tensor = TensorProto.FromString(pair[_VALUE][0])
            inputs[pair[_KEY][0].decode()] = tf.make_ndarray(tensor)
        yield _fields(parts[_MODEL_SPEC][0])[_SIGNATURE_NAME][0].decode(), inputs


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Returns the length-delimited fields of a protocol buffer, by number; others are left out."""
    found: dict[int, list[bytes]] = {}
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 2:
            size, place = _read_varint(message, place)
            found.setdefault(number, []).append(message[place : place + size])
            place += size
        elif kind == 0:
            _, place = _read_varint(message, place)
        else:
            place += 8 if kind == 1 else 4
    return found


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place
