"""Learning rates over a training."""

from typing import Any

import keras

SCHEDULES = ("constant", "cosine", "linear")


def learning_rate_schedule(
    schedule: str, learning_rate: float, *, num_steps: int, warmup: float = 0.0
) -> Any:
    """Returns the learning rate of every step, as Keras' optimizers take it.

    Args:
        schedule: `"constant"`; `"cosine"` and `"linear"` fall to zero at the
            last step.
        learning_rate: The highest.
        num_steps: Steps of the whole training.
        warmup: Share of the steps in which the rate first rises from zero.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`, or the rate itself
        where it stays constant.

    Raises:
        ValueError: If the name is unknown or `warmup` is not in 0..1.

    Example:
        >>> rate = learning_rate_schedule("cosine", 1e-3, num_steps=100, warmup=0.1)
        >>> [round(float(rate(step)), 6) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.0005, 0.001, 0.0005, 0.0]

    Reference:
        SGDR, https://arxiv.org/abs/1608.03983
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {SCHEDULES}, got {schedule!r}.")
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup must lie in 0..1, below 1, got {warmup}.")
    if schedule == "constant" and not warmup:
        return learning_rate
    return _Schedule(schedule, learning_rate, num_steps, warmup)


@keras.saving.register_keras_serializable(package="tfrec_llm", name="Schedule")
class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise, then the schedule of that name."""

    def __init__(self, schedule: str, learning_rate: float, num_steps: int, warmup: float):
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.num_steps = num_steps
        self.warmup = warmup

    def __call__(self, step):
        ops = keras.ops
        rising = max(1.0, round(self.warmup * self.num_steps)) if self.warmup else 0.0
        step = ops.cast(step, "float32")
        done = ops.clip((step - rising) / max(1.0, self.num_steps - rising), 0.0, 1.0)
        if self.schedule == "cosine":
            rate = 0.5 * self.learning_rate * (1.0 + ops.cos(done * 3.14159265))
        elif self.schedule == "linear":
            rate = self.learning_rate * (1.0 - done)
        else:
            rate = self.learning_rate + 0.0 * done
        return ops.minimum(rate, self.learning_rate * step / rising) if rising else rate

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule,
            "learning_rate": self.learning_rate,
            "num_steps": self.num_steps,
            "warmup": self.warmup,
        }
