"""Which devices train: one, all of this machine, or those of several workers."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras

KINDS = ("auto", "none", "mirrored", "multi_worker", "tpu", "data_parallel", "model_parallel")


def distribution_strategy(kind: Any = "auto", *, devices: Sequence[str] | None = None) -> Any:
    """Returns the strategy that shares the training out to devices, or None for one device.

    Make models in its scope, `distribution_scope(strategy)`, or hand it to `Recommender.fit`.

    Args:
        kind: On TensorFlow `"mirrored"` (all GPUs of this machine; without one, its logical
            processor devices), `"multi_worker"` (the workers that `TF_CONFIG` names) or `"tpu"`
            (the one that `TPU_NAME` names). On JAX `"data_parallel"`, or `"model_parallel"`,
            which also splits the item table by rows, so that each device holds a part of it.
            `"none"` for one device. `"auto"` takes what there is: several workers, a TPU,
            several GPUs or processor devices, or one device. A ready `tf.distribute.Strategy` or
            `keras.distribution.Distribution` is returned as it is.
        devices: Devices to use, such as `["GPU:0", "GPU:1"]`; None for all.

    Returns:
        A `tf.distribute.Strategy`, a `keras.distribution.Distribution` or None.

    Raises:
        ValueError: If the name is unknown or belongs to another backend, or there is no
            `TF_CONFIG` to read the workers from.
        RuntimeError: For `"multi_worker"`, if TensorFlow has begun to compute: make the strategy
            before anything else.

    Example:
        >>> distribution_strategy("none") is None
        True
        >>> with distribution_scope(distribution_strategy(devices=["CPU:0"])):
        ...     encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
    """
    if not isinstance(kind, str):
        return kind
    if kind not in KINDS:
        raise ValueError(f"The strategy must be one of {KINDS} or a ready one, got {kind!r}.")
    if kind == "none":
        return None
    backend = keras.backend.backend()
    of_jax = kind in ("data_parallel", "model_parallel")
    if kind != "auto" and (backend != "jax" if of_jax else backend != "tensorflow"):
        wanted = "the JAX backend" if of_jax else "the TensorFlow backend"
        raise ValueError(f"The strategy {kind!r} needs {wanted}; Keras runs on {backend}.")
    if backend == "jax":
        return _of_jax(kind, devices)
    return _of_tensorflow(kind, devices) if backend == "tensorflow" else None


@contextlib.contextmanager
def distribution_scope(strategy: Any) -> Iterator[Any]:
    """Has the models that are made inside belong to a strategy.

    On TensorFlow a model remembers its strategy, and `fit` may stand outside. On JAX `fit` must
    stand inside.

    Args:
        strategy: What `distribution_strategy` takes.

    Yields:
        The strategy, None for one device.

    Example:
        >>> with distribution_scope("none"):
        ...     encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
    """
    strategy = distribution_strategy(strategy) if strategy is not None else None
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        yield strategy


def _of_tensorflow(kind: str, devices: Sequence[str] | None) -> Any:
    import tensorflow as tf

    if kind == "auto":
        if len(_workers()) > 1:
            kind = "multi_worker"
        elif "TPU_NAME" in os.environ:
            kind = "tpu"
    if kind == "multi_worker":
        return _multi_worker()
    if kind == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if devices is None:
        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        devices = [device.name for device in found]
    if kind == "auto" and len(devices) == 1:
        return None
    return tf.distribute.MirroredStrategy(list(devices))


def _workers() -> list[str]:
    """Returns the addresses of the workers that TF_CONFIG names."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return [address for job in ("chief", "worker") for address in cluster.get(job, [])]


def _multi_worker() -> Any:
    import tensorflow as tf

    if not _workers():
        raise ValueError(
            "TF_CONFIG names no workers. Set it on every worker, such as "
            '{"cluster": {"worker": ["host1:7070", "host2:7070"]}, '
            '"task": {"type": "worker", "index": 0}}, with the index of its own.'
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            f"{error} Call distribution_strategy() first of all, before data and models."
        ) from error


def _of_jax(kind: str, devices: Sequence[str] | None) -> Any:
    devices = keras.distribution.list_devices() if devices is None else list(devices)
    if kind == "auto":
        if len(devices) == 1:
            return None
        kind = "data_parallel"
    if kind == "data_parallel":
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*item_embedding/table"] = ("model", None)
    return keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
    )
