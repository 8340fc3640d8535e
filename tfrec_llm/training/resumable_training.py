"""Training that can be taken up in the middle of an epoch."""

from typing import Any

import keras

from tfrec_llm.data.ordered_batches import EpochOrder
from tfrec_llm.training.batch_reading import BatchReading
from tfrec_llm.training.graceful_stop import graceful_stop


class ResumableTraining(keras.Model):
    """What a model inherits so that `TrainingCheckpoint` can take its training up at any step.

    `fit` takes the batches of a `keras.utils.PyDataset` in an order that follows from the data's
    seed and the epoch; see `EpochOrder`. Steps that were done before are read and not trained on
    again.
    """

    epoch_order: EpochOrder | None = None
    steps_to_skip = 0
    train_function: Any

    def fit(self, x=None, *args, **kwargs):
        """Trains; takes and returns what `keras.Model.fit` does."""
        order = None
        if isinstance(x, keras.utils.PyDataset):
            order = EpochOrder(x, shuffle=kwargs.pop("shuffle", True))
            x = self.shared_out(order, class_weight=kwargs.get("class_weight"))
            kwargs["shuffle"] = False
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = self.shared_out(kwargs["validation_data"])
        self.__dict__["epoch_order"] = order
        self.steps_to_skip = 0
        with graceful_stop(kwargs.get("callbacks")):
            return super().fit(x, *args, **kwargs)

    def shared_out(self, data, class_weight=None):
        """Returns data as the devices take it, which classes that share it out override."""
        if keras.backend.backend() == "tensorflow" and isinstance(data, keras.utils.PyDataset):
            return BatchReading(data, class_weight)
        return data

    def build_metrics(self) -> None:
        """Makes the variables of the compiled metrics, which Keras may leave to the first step."""
        if self.epoch_order is not None:
            self._symbolic_build(data_batch=self.epoch_order[0])

    def make_train_function(self, force=False):
        before = self.train_function
        super().make_train_function(force)
        if self.train_function is not before:
            self.train_function = self._skipping(self.train_function)

    def _skipping(self, function: Any) -> Any:
        """Returns a training function that reads over the steps that were done before."""

        def step(*state_and_iterator):
            if self.steps_to_skip <= 0:
                return function(*state_and_iterator)
            *state, iterator = state_and_iterator
            for _ in range(self.steps_per_execution):
                next(iterator, None)
            self.steps_to_skip -= self.steps_per_execution
            # Zeros only until the first step; an epoch's logs are read from the metrics.
            logs = dict.fromkeys(_names(self.metrics), 0.0)
            return (logs, *state) if state else logs

        return step


def _names(metrics: list[Any]) -> list[str]:
    """Returns the names that values of metrics have in logs."""
    return [each.name for metric in metrics for each in getattr(metric, "metrics", [metric])]
