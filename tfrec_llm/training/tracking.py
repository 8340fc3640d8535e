"""Trainings recorded by tools that teams compare them with."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

Tracking = str | Mapping[str, str | os.PathLike[str] | None] | None


@contextlib.contextmanager
def tracked(tracking: Tracking, config: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Opens a run in each tool and gives the callbacks that record epochs there.

    The run is closed when the block ends, as failed if it ends by an error.
    Put the callbacks behind those that write into the logs.

    Args:
        tracking: `"tensorboard"`, `"mlflow"` or `"wandb"` (Weights & Biases),
            or a dict of them to where the runs are kept: a folder, of MLflow
            also the address of a server; None takes the tool's own setting.
        config: What was chosen, recorded as the run's parameters.

    Yields:
        Keras callbacks.

    Raises:
        ValueError: If a tool has an unknown name.
        ImportError: If it is not installed.

    Example:
        >>> with tracked(None, {"dropout": 0.2}) as callbacks:
        ...     callbacks
        []
    """
    wanted = {tracking: None} if isinstance(tracking, str) else dict(tracking or {})
    unknown = sorted(wanted.keys() - _TOOLS.keys())
    if unknown:
        raise ValueError(f"tracking must be of {sorted(_TOOLS)}, got {unknown[0]!r}.")
    with contextlib.ExitStack() as open_runs:
        callbacks = []
        for name, where in wanted.items():
            try:
                callbacks.append(open_runs.enter_context(_TOOLS[name](where, config)))
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] != name:
                    raise
                raise ImportError(
                    f"tracking={name!r} needs {name}: pip install 'tfrec-llm[tracking]'"
                ) from error
        yield callbacks


@contextlib.contextmanager
def _tensorboard(where: Any, config: Mapping[str, Any]) -> Iterator[Any]:
    import tensorboard  # noqa: F401
    import tensorflow as tf

    folder = Path(where or "logs")
    with tf.summary.create_file_writer(str(folder / "config")).as_default():
        lines = [f"| {name} | {value} |" for name, value in config.items()]
        tf.summary.text("config", "\n".join(["| name | value |", "|---|---|", *lines]), step=0)
    yield keras.callbacks.TensorBoard(str(folder), write_graph=False)


@contextlib.contextmanager
def _mlflow(where: Any, config: Mapping[str, Any]) -> Iterator[Any]:
    import mlflow
    import mlflow.keras

    if where is not None:
        is_address = "://" in str(where)
        mlflow.set_tracking_uri(str(where) if is_address else Path(where).resolve().as_uri())
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "tfrec_llm"))

    class Callback(mlflow.keras.MlflowCallback):
        def on_epoch_end(self, epoch, logs=None):
            # MLflow takes no @ in a name.
            named = {name.replace("@", "_at_"): value for name, value in (logs or {}).items()}
            super().on_epoch_end(epoch, named)

    # A run that is open already is the caller's, to be ended by them.
    own = mlflow.start_run() if mlflow.active_run() is None else contextlib.nullcontext()
    with own:
        mlflow.log_params(dict(config))
        yield Callback()
        mlflow.flush_async_logging()


@contextlib.contextmanager
def _wandb(where: Any, config: Mapping[str, Any]) -> Iterator[Any]:
    import wandb

    if wandb.run is not None:
        wandb.config.update(dict(config))
        yield _WandbMetrics(wandb.run)
        return
    # Without a key it would ask for one; what is recorded offline is sent later by `wandb sync`.
    known = os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY")
    if where is not None:
        Path(where).mkdir(parents=True, exist_ok=True)
    with wandb.init(
        dir=None if where is None else str(where),
        config=dict(config),
        mode=None if known else "offline",
    ) as run:
        yield _WandbMetrics(run)


class _WandbMetrics(keras.callbacks.Callback):
    """Its own callback for Keras imports `tf.keras`, which a process may not have."""

    def __init__(self, run: Any):
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch, logs=None):
        self.run.log({f"epoch/{name}": value for name, value in (logs or {}).items()}, step=epoch)


_TOOLS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
