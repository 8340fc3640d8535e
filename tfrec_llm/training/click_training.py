"""Trains and evaluates models that give the probability of a click."""

import inspect
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfrec_llm.data.labels import as_labels
from tfrec_llm.errors import DataError
from tfrec_llm.metrics.click import accuracy, auc
from tfrec_llm.training.click_evaluation import ClickEvaluation
from tfrec_llm.training.update_order import keep_update_order


def train_step(model: Any, user_data: Any, item_data: Any, labels: Any) -> float:
    """Trains a model of click probabilities by one step on one batch.

    The step is compiled. It uses the optimizer and the loss that the model was
    compiled with; a model that was not compiled is trained by Adam with a
    learning rate of 0.001 on the cross-entropy of its probabilities. The
    output is a probability already, so it never passes a second sigmoid.

    Args:
        model: Keras model or layer, called as `model(user_data, item_data)`,
            or as `model([user_data, item_data])` where its call takes one
            argument, as a functional model's does. Gives one probability a
            pair, `[rows]` or `[rows, 1]`.
        user_data: Array `[rows, ...]`, or a dict of such arrays.
        item_data: Array `[rows, ...]`, or a dict of such arrays.
        labels: Array `[rows]` or `[rows, 1]` in 0..1, 1 for a click.

    Returns:
        The loss of the batch before the step, regularisers included.

    Raises:
        DataError: If there are no rows, lengths differ, a value is NaN or
            infinite, or a label lies outside 0..1.
        ValueError: If the model's output is no probability.
        TypeError: If the model is no Keras model or layer.

    Example:
        >>> users, items = keras.Input((4,)), keras.Input((4,))
        >>> clicked = keras.layers.Dense(1, "sigmoid")(keras.layers.multiply([users, items]))
        >>> model = keras.Model([users, items], clicked)
        >>> train_step(model, np.zeros((2, 4)), np.zeros((2, 4)), [0, 1])  # log(2)
        0.6931...
    """
    user_data, item_data, labels = _checked(user_data, item_data, labels)
    return _step(_trainer(model, user_data, item_data), user_data, item_data, labels)


def train_epoch(
    model: Any,
    user_data: Any,
    item_data: Any,
    labels: Any,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
) -> float:
    """Trains a model of click probabilities by one pass over the data.

    Args:
        model: See `train_step`.
        user_data: See `train_step`.
        item_data: See `train_step`.
        labels: See `train_step`.
        batch_size: Pairs a step; the last batch may be smaller.
        shuffle: Whether pairs are taken in random order.
        seed: Seed of that order. Give another one at each epoch, such as the
            epoch's number.

    Returns:
        The mean loss over all pairs, each measured before its step.

    Raises:
        DataError: See `train_step`.
        ValueError: If `batch_size` is below 1, or the model's output is no
            probability.
        TypeError: If the model is no Keras model or layer.

    Example:
        >>> users, items = keras.Input((4,)), keras.Input((4,))
        >>> clicked = keras.layers.Dense(1, "sigmoid")(keras.layers.multiply([users, items]))
        >>> model = keras.Model([users, items], clicked)
        >>> data = np.random.default_rng(0).random((10, 4))
        >>> first = train_epoch(model, data, data, data[:, 0] > 0.5, batch_size=4)
        >>> train_epoch(model, data, data, data[:, 0] > 0.5, batch_size=4) < first
        True
    """
    user_data, item_data, labels = _checked(user_data, item_data, labels)
    _check_batch_size(batch_size)
    trainer = _trainer(model, user_data, item_data)
    order = np.random.default_rng(seed).permutation(len(labels)) if shuffle else None
    total = 0.0
    for rows in _batches(len(labels), batch_size, order):
        part = labels[rows]
        loss = _step(trainer, _taken(user_data, rows), _taken(item_data, rows), part)
        total += loss * len(part)
    return total / len(labels)


def evaluate(
    model: Any, user_data: Any, item_data: Any, labels: Any, batch_size: int
) -> ClickEvaluation:
    """Measures a model of click probabilities, and changes nothing in it.

    Args:
        model: See `train_step`.
        user_data: See `train_step`.
        item_data: See `train_step`.
        labels: See `train_step`.
        batch_size: Pairs computed at a time.

    Returns:
        The mean loss over all pairs without regularisers, a float that also
        has `.auc` and `.accuracy`.

    Raises:
        DataError: See `train_step`.
        ValueError: If `batch_size` is below 1, or the model's output is no
            probability.
        TypeError: If the model is no Keras model or layer.

    Example:
        >>> users, items = keras.Input((4,)), keras.Input((4,))
        >>> clicked = keras.layers.Dense(1, "sigmoid")(keras.layers.multiply([users, items]))
        >>> model = keras.Model([users, items], clicked)
        >>> evaluation = evaluate(model, np.zeros((2, 4)), np.zeros((2, 4)), [0, 1], batch_size=2)
        >>> round(evaluation, 4), evaluation.auc
        (0.6931, 0.5)
    """
    user_data, item_data, labels = _checked(user_data, item_data, labels)
    _check_batch_size(batch_size)
    trainer = _trainer(model, user_data, item_data)
    total, outputs = 0.0, []
    for rows in _batches(len(labels), batch_size):
        batch = [_taken(user_data, rows), _taken(item_data, rows)]
        output = np.asarray(trainer.predict_on_batch(batch))
        if not ((output >= 0) & (output <= 1)).all():
            raise _no_probability()
        # A loss that is a plain function gives a value a pair.
        loss = ops.convert_to_numpy(ops.mean(trainer.data_loss(labels[rows], output)))
        total += float(loss) * len(output)
        outputs.append(output)
    probabilities = np.concatenate(outputs)[:, 0]
    return ClickEvaluation(
        total / len(labels),
        auc=auc(labels[:, 0], probabilities),
        accuracy=accuracy(labels[:, 0], probabilities),
    )


class _ClickTrainer(keras.Model):
    """A model of one argument around a model of two, so that Keras compiles its steps."""

    def __init__(self, model: keras.Layer, optimizer: Any, loss: Any):
        # The model inside casts by its own policy.
        super().__init__(dtype="float32", name="click_trainer")
        self.model = model
        self.data_loss = keras.losses.get(loss)
        keep_update_order()
        self.compile(optimizer=optimizer, loss=loss, metrics=[_outside])

    def call(self, inputs):
        output = ops.cast(_called(self.model, inputs), "float32")
        return ops.reshape(output, (-1, 1))


class _Held:
    """Keeps a model's trainer on the model, where Keras neither tracks nor saves it.

    A weak dictionary would not do: a trainer refers to its model, so neither
    would ever be freed.
    """

    def __init__(self, trainer: _ClickTrainer, made_of: tuple[Any, ...]):
        self.trainer = trainer
        self.made_of = made_of


def _trainer(model: Any, user_data: Any, item_data: Any) -> _ClickTrainer:
    """Returns the model's trainer; made anew where what it was made of has changed."""
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"The model must be a Keras model or layer, got {type(model).__name__}: weights are "
            "found only there. Make it a subclass of keras.Model."
        )
    held = getattr(model, "_click_trainer", None)
    if held is not None and held.made_of == _made_of(model):
        return held.trainer
    one_pair = slice(0, 1)
    output = _called(model, [_taken(user_data, one_pair), _taken(item_data, one_pair)])
    if math.prod(output.shape) != 1:
        raise ValueError(
            "The model must give one probability a pair, [rows] or [rows, 1], but for one pair "
            f"its output has the shape {tuple(output.shape)}."
        )
    if isinstance(model, keras.Model) and model.compiled:
        trainer = _ClickTrainer(model, model.optimizer, _loss_of_probabilities(model.loss))
    else:
        trainer = _ClickTrainer(
            model, keras.optimizers.Adam(1e-3), keras.losses.BinaryCrossentropy()
        )
    model._click_trainer = _Held(trainer, _made_of(model))
    return trainer


def _made_of(model: keras.Layer) -> tuple[Any, ...]:
    # Which weights are trained is compiled into the step.
    trained = [id(variable) for variable in model.trainable_variables]
    if isinstance(model, keras.Model) and model.compiled:
        return trained, model.optimizer, model.loss
    return (trained,)


def _called(model: keras.Layer, pair: Sequence[Any]) -> Any:
    names = list(inspect.signature(model.call).parameters)
    takes_two = len(names) > 1 and names[1] not in ("training", "mask")
    return model(*pair) if takes_two else model(list(pair))


def _loss_of_probabilities(loss: Any) -> Any:
    """Returns the loss that takes probabilities, where the given one expects logits."""
    if not isinstance(loss, keras.losses.Loss) or not loss.get_config().get("from_logits"):
        return loss
    warnings.warn(
        f"The model was compiled with {type(loss).__name__}(from_logits=True), but it gives "
        "probabilities. They are taken as such, without a second sigmoid. Compile the model with "
        "from_logits=False.",
        stacklevel=4,
    )
    return type(loss).from_config(loss.get_config() | {"from_logits": False})


def _outside(y_true, y_pred):
    """The share of outputs that are no probability, NaN among them."""
    inside = ops.logical_and(y_pred >= 0.0, y_pred <= 1.0)
    return 1.0 - ops.cast(inside, "float32")


def _step(trainer: _ClickTrainer, user_data: Any, item_data: Any, labels: np.ndarray) -> float:
    logs = trainer.train_on_batch([user_data, item_data], labels, return_dict=True)
    if logs[_outside.__name__] != 0.0:
        raise _no_probability()
    return float(logs["loss"])


def _no_probability() -> ValueError:
    return ValueError(
        "The model's outputs must be probabilities, but some are below 0, above 1 or NaN. End the "
        "model with a sigmoid, as Recommendation does."
    )


def _checked(user_data: Any, item_data: Any, labels: Any) -> tuple[Any, Any, np.ndarray]:
    """Returns the data as arrays, and the labels as float32 `[rows, 1]`."""
    labels = as_labels(labels).astype(np.float32)[:, None]
    rows = len(labels)
    return _arrays("user_data", user_data, rows), _arrays("item_data", item_data, rows), labels


def _arrays(name: str, data: Any, rows: int) -> Any:
    if isinstance(data, dict):
        return {key: _arrays(f"{name}[{key!r}]", value, rows) for key, value in data.items()}
    values = np.asarray(data)
    if values.ndim == 0 or len(values) != rows:
        found = len(values) if values.ndim else "no"
        raise DataError(f"{name} has {found} rows, but there are {rows} labels.")
    if values.dtype.kind == "f":
        wrong = int((~np.isfinite(values)).sum())
        if wrong:
            raise DataError(f"{wrong} values of {name} are NaN or infinite.")
    return values


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")


def _batches(num_rows: int, batch_size: int, order: np.ndarray | None = None) -> Iterator[Any]:
    for start in range(0, num_rows, batch_size):
        part = slice(start, start + batch_size)
        yield part if order is None else order[part]


def _taken(data: Any, rows: Any) -> Any:
    if isinstance(data, dict):
        return {key: _taken(value, rows) for key, value in data.items()}
    return data[rows]
