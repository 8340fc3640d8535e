"""Several models' probabilities as one, weighted by what validation says."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrec_llm.data.labels import as_labels, as_probabilities, as_weights
from tfrec_llm.errors import DataError, NotFittedError

_ROUNDS = 1000


class ProbabilityBlend:
    """Mixes what several models hold likely of the same impressions: `sum of w_m * p_m`.

    Where `Blend` mixes rankings of a catalogue, this mixes probabilities, whatever gave them:
    Keras models of several seeds, a pre-trained model and gradient boosting on features. On the
    validation data the mixture is at least as good as the best of them.

    Args:
        weights: Weight of each name; None leaves them to `fit`.

    Attributes:
        weights: Weight of each name, adding up to one.

    Raises:
        ValueError: If weights are negative or all zero.

    Example:
        >>> clicked = [1, 0, 1, 0]
        >>> of_models = {"boosting": [0.6, 0.3, 0.4, 0.5], "encoder": [0.5, 0.4, 0.7, 0.2]}
        >>> blend = ProbabilityBlend().fit(of_models, clicked)
        >>> blend.weights["encoder"] > 0.5
        True
        >>> blend.predict(of_models).shape
        (4,)

    Reference:
        Combining probability distributions, a critique and an annotated bibliography,
        https://doi.org/10.1214/ss/1177013825
    """

    def __init__(self, *, weights: Mapping[str, float] | None = None):
        self.weights: dict[str, float] | None = None
        if weights is not None:
            total = float(sum(weights.values()))
            if min(weights.values(), default=0.0) < 0.0 or not total > 0.0:
                raise ValueError(f"weights must be 0 or more and not all 0, got {dict(weights)}.")
            self.weights = {name: weight / total for name, weight in weights.items()}

    def fit(
        self, probabilities: Mapping[str, Any], labels: Any, *, sample_weight: Any = None
    ) -> "ProbabilityBlend":
        """Chooses the weights of the least log loss.

        Expectation maximisation: each model's weight becomes its share in what the mixture holds
        likely of the labels, over and over.

        Args:
            probabilities: Float `[n]` in 0..1 by name, of validation data that no model was
                fitted on.
            labels: `[n]` in 0..1, 1 for a click.
            sample_weight: Float `[n]`, 0 or more; None for equal ones.

        Returns:
            Itself.

        Raises:
            ValueError: If there are no probabilities.
            DataError: If there are no labels, lengths differ, or a value is NaN or outside 0..1.
        """
        if not probabilities:
            raise ValueError("A blend needs the probabilities of a model or more.")
        true = as_labels(labels)
        found = self._rows(probabilities, probabilities, len(true))
        # Nothing is held impossible, or one sure error would silence a model.
        found = np.clip(found, 1e-7, 1.0 - 1e-7)
        counts = as_weights(sample_weight, len(true))
        counts = np.ones(len(true)) if counts is None else np.asarray(counts, np.float64)
        clicked, not_clicked = counts * true / counts.sum(), counts * (1.0 - true) / counts.sum()
        weights = np.full(len(found), 1.0 / len(found))
        for _ in range(_ROUNDS):
            mixed = weights @ found
            gain = found @ (clicked / mixed) + (1.0 - found) @ (not_clicked / (1.0 - mixed))
            weights = weights * gain
            weights /= weights.sum()
            if np.abs(gain - 1.0)[weights > 1e-6].max() < 1e-7:
                break
        self.weights = dict(zip(probabilities, weights.tolist(), strict=True))
        return self

    def predict(self, probabilities: Mapping[str, Any]) -> np.ndarray:
        """Returns the mixed probabilities, float64 `[n]`.

        Args:
            probabilities: Float `[n]` in 0..1 of every name; further names are left aside.

        Raises:
            NotFittedError: If there are no weights.
            DataError: If a name is missing, lengths differ, or a value is NaN or outside 0..1.
        """
        if self.weights is None:
            raise NotFittedError(
                "This ProbabilityBlend has no weights: call fit() or pass weights=."
            )
        missing = [name for name in self.weights if name not in probabilities]
        if missing:
            raise DataError(f"The probabilities of {missing} are missing; got {[*probabilities]}.")
        first = np.asarray(probabilities[next(iter(self.weights))])
        rows = self._rows(self.weights, probabilities, first.size)
        return np.array(list(self.weights.values())) @ rows

    @staticmethod
    def _rows(names: Any, probabilities: Mapping[str, Any], length: int) -> np.ndarray:
        """Returns float64 `[models, n]`."""
        return np.stack(
            [as_probabilities(probabilities[name], length).astype(np.float64) for name in names]
        )
