"""Asks TensorFlow Serving, or `tfrec-llm serve`, for recommendations.

    python client.py A13,B4                                  (REST, localhost:8501)
    python client.py A13,B4 --address shop:8500 --grpc       (gRPC)

Each history is an argument, its ids between commas; an empty one is a new visitor. REST needs
nothing but Python; gRPC needs `pip install tensorflow tensorflow-serving-api`.
"""

import argparse
import json
import urllib.request
from typing import Any

# Histories are filled up to these lengths, so that a server that batches can join requests.
LENGTHS = (8, 32, 128)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("histories", nargs="+", help="ids between commas, the oldest first")
    parser.add_argument("--address", help="HOST:PORT (default: localhost:8501, or 8500 for gRPC)")
    parser.add_argument("--model", default="shop", help="(default: %(default)s)")
    parser.add_argument("--integers", action="store_true", help="ids are integers")
    parser.add_argument("--grpc", action="store_true", help="by gRPC")
    parser.add_argument("--api-key", help="of tfrec-llm serve")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    kind: Any = int if arguments.integers else str
    histories = [[kind(one) for one in text.split(",") if one] for text in arguments.histories]
    padded = fill_up(histories, -1 if arguments.integers else "")
    if arguments.grpc:
        found = by_grpc(
            arguments.address or "localhost:8500", arguments.model, padded, arguments.timeout
        )
    else:
        found = by_rest(
            arguments.address or "localhost:8501",
            arguments.model,
            padded,
            arguments.timeout,
            arguments.api_key,
        )
    for row, source in enumerate(found["source"]):
        items = [
            f"{item} ({score:.3f})"
            for item, score in zip(found["items"][row], found["scores"][row], strict=True)
            if item != ("" if kind is str else -1)
        ]
        print(f"{arguments.histories[row]}: {', '.join(items)}  [{source}]")


def fill_up(histories: list[list[Any]], padding: Any) -> list[list[Any]]:
    """Returns the histories at one length, the newest of them behind padding."""
    longest = max(map(len, histories))
    length = next((one for one in LENGTHS if one >= longest), LENGTHS[-1])
    return [[padding] * (length - len(one)) + one[-length:] for one in histories]


def by_rest(
    address: str, model: str, histories: list[list[Any]], timeout: float, key: str | None = None
) -> dict[str, Any]:
    """Returns items, scores and source of each history, by REST."""
    request = urllib.request.Request(
        f"http://{address}/v1/models/{model}:predict",
        json.dumps({"inputs": {"history": histories}}).encode(),
        {"content-type": "application/json"} | ({"x-api-key": key} if key else {}),
    )
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return json.load(response)["outputs"]


def by_grpc(address: str, model: str, histories: list[list[Any]], timeout: float) -> dict[str, Any]:
    """Returns items, scores and source of each history, by gRPC."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = service.Predict(request_of(model, histories), timeout=timeout)
    outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    return {
        name: [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]
        if values.ndim == 1
        else [[one.decode() if isinstance(one, bytes) else one for one in row] for row in values]
        for name, values in outputs.items()
    }


def request_of(model: str, histories: list[list[Any]]) -> Any:
    """Returns the gRPC request for histories of one length."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default"
    dtype = tf.int64 if isinstance(histories[0][0], int) else tf.string
    request.inputs["history"].CopyFrom(tf.make_tensor_proto(histories, dtype))
    return request


if __name__ == "__main__":
    main()
