"""The model that scores, beside the one that is trained."""

import keras


class ScoringCopy(keras.callbacks.Callback):
    """Brings a scoring model up to the trained one after every epoch.

    With `averaging` it gets an exponential average over the epochs' ends, in
    which each weighs `averaging` times the one after it. That evens out the
    last steps' noise and often ranks better than any single epoch. The
    weights add up to one from the first epoch on, as in Adam's moments, so a
    long average does not lag behind its untrained beginning.

    Args:
        trained: The model in training.
        scoring: The model of the same weights that scores.
        averaging: What an epoch weighs beside the one after it; 0 copies.

    Raises:
        ValueError: If `averaging` is not in 0..1, below 1.

    Example:
        >>> trained = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> scoring = keras.models.clone_model(trained)
        >>> copy = ScoringCopy(trained, scoring, averaging=0.8)
        >>> copy.on_epoch_end(0)  # the first epoch is copied whole
        >>> bool((trained.get_weights()[0] == scoring.get_weights()[0]).all())
        True

    Reference:
        Averaging Weights Leads to Wider Optima, https://arxiv.org/abs/1803.05407;
        Adam, section 3, https://arxiv.org/abs/1412.6980
    """

    def __init__(self, trained: keras.Model, scoring: keras.Model, *, averaging: float = 0.0):
        super().__init__()
        check_averaging(averaging)
        self.trained = trained
        self.scoring = scoring
        self.averaging = averaging

    def on_epoch_end(self, epoch, logs=None):
        if self.trained is self.scoring:
            return
        newest = self.trained.get_weights()
        # A resumed training goes on with the average it had; epoch 0 begins one. The epochs
        # before weigh a + a^2 + ... + a^epoch in it, this one 1.
        kept = 1.0 - (1.0 - self.averaging) / (1.0 - self.averaging ** (epoch + 1))
        if kept:
            held = self.scoring.get_weights()
            # Indexes, such as those of items' features, are none to average.
            newest = [
                kept * old + (1.0 - kept) * new if new.dtype.kind == "f" else new
                for old, new in zip(held, newest, strict=True)
            ]
        self.scoring.set_weights(newest)


def check_averaging(averaging: float) -> None:
    """Raises a ValueError unless the share lies in 0..1, below 1."""
    if not 0.0 <= averaging < 1.0:
        raise ValueError(f"weight_averaging must lie in 0..1, below 1, got {averaging}.")
