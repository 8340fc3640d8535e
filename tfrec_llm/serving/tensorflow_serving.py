"""The REST forms of TensorFlow Serving: so its clients may ask this server."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrec_llm.serving.exported_model import ExportedModel
from tfrec_llm.serving.model_versions import VersionState

_TYPES = {"string": "DT_STRING", "int64": "DT_INT64", "int32": "DT_INT32", "bool": "DT_BOOL"}
_TYPES |= {"float32": "DT_FLOAT"}
_CODES = {"AVAILABLE": "OK", "LOADING": "OK", "END": "UNKNOWN"}


class RequestError(ValueError):
    """A request that cannot be answered; the message says why."""


def status(states: list[VersionState]) -> dict[str, Any]:
    """Returns the body of `GET /v1/models/NAME`."""
    return {
        "model_version_status": [
            {
                "version": str(one.version),
                "state": one.state,
                "status": {
                    "error_code": _CODES[one.state] if one.error else "OK",
                    "error_message": one.error,
                },
            }
            for one in states
        ]
    }


def metadata(name: str, model: ExportedModel) -> dict[str, Any]:
    """Returns the body of `GET /v1/models/NAME/metadata`."""

    def described(specs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: {
                "dtype": _TYPES[spec.dtype.name],
                "tensor_shape": {
                    "dim": [
                        {"size": str(-1 if size is None else size), "name": ""}
                        for size in spec.shape
                    ],
                    "unknown_rank": False,
                },
                "name": spec.name,
            }
            for key, spec in specs.items()
        }

    signatures = {
        key: {
            "inputs": described(function.structured_input_signature[1]),
            "outputs": described(function.structured_outputs),
            "method_name": "tensorflow/serving/predict",
        }
        for key, function in model.signatures.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def read_request(
    body: bytes, model: ExportedModel, *, max_rows: int, max_length: int, max_k: int
) -> tuple[str, dict[str, np.ndarray], bool]:
    """Reads the body of a `:predict` request.

    Args:
        body: JSON.
        model: The version that is asked.
        max_rows: Most users.
        max_length: Most ids of a row.
        max_k: Most items of a list.

    Returns:
        The name of the signature, its inputs, and whether they came in rows ("instances").

    Raises:
        RequestError: If the request is not one.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise RequestError("The request is no JSON object.")
    unknown = set(request) - {"signature_name", "instances", "inputs"}
    if unknown:
        raise RequestError(f"The request has unknown fields: {_short(sorted(unknown))}")
    signature = request.get("signature_name", "serving_default")
    if not isinstance(signature, str) or signature not in model.signatures:
        raise RequestError(
            f"Serving signature name: {_short(signature)} not found; there are "
            f"{', '.join(sorted(model.signatures))}."
        )
    by_rows = "instances" in request
    if by_rows == ("inputs" in request):
        raise RequestError('The request needs either "instances" or "inputs".')
    specs = model.signatures[signature].structured_input_signature[1]
    given = _by_name(request["instances"] if by_rows else request["inputs"], specs, by_rows)
    inputs = {name: _array(name, given[name], spec) for name, spec in specs.items()}
    rows = {len(values) for values in inputs.values()}
    if len(rows) > 1:
        raise RequestError(f"The inputs have different numbers of rows: {sorted(rows)}.")
    if rows and max(rows) > max_rows:
        raise RequestError(f"A request has at most {max_rows} rows.")
    for name, values in inputs.items():
        if values.ndim > 1 and values.shape[1] > max_length:
            raise RequestError(f"A row of {name!r} has at most {max_length} ids.")
    if "k" in inputs and (inputs["k"] > max_k).any():
        raise RequestError(f"k is at most {max_k}.")
    return signature, inputs, by_rows


def response(outputs: Mapping[str, np.ndarray], by_rows: bool) -> dict[str, Any]:
    """Returns the body of the response to a `:predict` request."""
    values = {name: _plain(output) for name, output in outputs.items()}
    alone = len(values) == 1
    if not by_rows:
        return {"outputs": next(iter(values.values())) if alone else values}
    if alone:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


def _by_name(given: Any, specs: Mapping[str, Any], by_rows: bool) -> dict[str, Any]:
    names = set(specs)
    if by_rows:
        if not isinstance(given, list) or not given:
            raise RequestError('"instances" is no list, or an empty one.')
        if all(isinstance(row, dict) and set(row) != {"b64"} for row in given):
            wrong = next((row for row in given if set(row) != names), None)
            if wrong is not None:
                raise RequestError(
                    f"An instance has the inputs {_short(sorted(wrong))}; the signature takes "
                    f"{sorted(names)}."
                )
            return {name: [row[name] for row in given] for name in names}
    elif isinstance(given, dict) and set(given) != {"b64"}:
        if set(given) != names:
            raise RequestError(
                f"The request has the inputs {_short(sorted(given))}; the signature takes "
                f"{sorted(names)}."
            )
        return given
    if len(names) > 1:
        raise RequestError(f"The signature takes the inputs {sorted(names)}, by their names.")
    return dict.fromkeys(names, given)


def _array(name: str, given: Any, spec: Any) -> np.ndarray:
    rank = len(spec.shape)
    kind = spec.dtype.name
    values = _flattened(name, given, rank, kind)
    shape = values[1]
    try:
        if kind == "string":
            flat = np.empty(len(values[0]), object)
            flat[:] = values[0]
        else:
            flat = np.array(values[0], spec.dtype.as_numpy_dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"The input {name!r} cannot be read: {error}") from error
    return flat.reshape(shape)


def _flattened(name: str, given: Any, rank: int, kind: str) -> tuple[list[Any], tuple[int, ...]]:
    """Returns the values of nested lists and their shape, which must be whole."""
    level, shape = [given], []
    for _ in range(rank):
        if not all(isinstance(one, list) for one in level):
            raise RequestError(f"The input {name!r} needs {rank} dimensions.")
        sizes = {len(one) for one in level} or {0}
        if len(sizes) > 1:
            raise RequestError(
                f"The rows of the input {name!r} are of different lengths: fill them up with the "
                "padding."
            )
        shape.append(sizes.pop())
        level = [value for one in level for value in one]
    return [_value(name, value, kind) for value in level], tuple(shape)


def _value(name: str, value: Any, kind: str) -> Any:
    if kind == "string":
        if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError) as error:
                raise RequestError(f"The input {name!r} holds no base64: {error}") from error
        if isinstance(value, str):
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                raise RequestError(f"The input {name!r} holds no Unicode text.") from error
    elif kind == "bool":
        if isinstance(value, bool):
            return value
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise RequestError(f"The input {name!r} is of type {kind}, and {_short(value)} is none.")


def _plain(output: np.ndarray) -> Any:
    if output.dtype != object:
        return output.tolist()
    flat = [value.decode("utf-8", "replace") for value in output.ravel()]
    lists: Any = np.array([*flat, None], object)[:-1].reshape(output.shape).tolist()
    return lists


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
