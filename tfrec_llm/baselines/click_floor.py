"""Classical models on hand-made features: what a ranking model has to beat."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from tfrec_llm.baselines.impression_features import ImpressionFeatures
from tfrec_llm.data.labels import as_labels, as_weights
from tfrec_llm.errors import DataError, NotFittedError
from tfrec_llm.metrics.click import log_loss

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog

Method = Literal["boosting", "logistic"]

# What is tried on validation; without it, the first of each is taken.
_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "boosting": [{"max_leaf_nodes": nodes} for nodes in (4, 8, 16)],
    "logistic": [{"C": strength} for strength in (0.01, 0.001, 0.003, 0.03, 0.1, 0.3, 1.0)],
}
_MOST_ROUNDS = 200
_ROUNDS = 50  # where no validation says how many


class ClickFloor:
    """Predicts labels of impressions from hand-made features with scikit-learn.

    Gradient boosting, or logistic regression on standardised features. Given a validation log,
    `fit` chooses the size of the trees and their number, or the strength of the regularisation,
    by its log loss.

    Args:
        method: `"boosting"` or `"logistic"`.
        features: Makes the features; None for `ImpressionFeatures()`.
        settings: Arguments of scikit-learn's `HistGradientBoostingClassifier` or
            `LogisticRegression` to choose from; without validation the first is taken. None for
            a few that are commonly good.
        seed: Of what scikit-learn draws.

    Attributes:
        chosen: The settings that were chosen, after `fit`.
        estimator: The fitted estimator of scikit-learn, of which the features are
            `features.names`.

    Raises:
        ValueError: If there is no such method, or `settings` is empty.

    Example:
        >>> shown = tfrec_llm.data.load_impressions("eshop").take(np.arange(20_000))
        >>> split = tfrec_llm.data.impression_split(shown, test=0.3)
        >>> floor = ClickFloor("logistic").fit(split.train)
        >>> floor.predict(split.test).shape == (len(split.test),)
        True

    Reference:
        Friedman, Greedy function approximation: a gradient boosting machine,
        https://doi.org/10.1214/aos/1013203451
    """

    def __init__(
        self,
        method: Method = "boosting",
        *,
        features: ImpressionFeatures | None = None,
        settings: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
    ):
        if method not in _SETTINGS:
            raise ValueError(f"method must be one of {sorted(_SETTINGS)}, not {method!r}.")
        if settings is not None and not len(settings):
            raise ValueError("settings is empty; give one at least, or None.")
        self.method = method
        self.features = ImpressionFeatures() if features is None else features
        self.settings = [dict(one) for one in (_SETTINGS[method] if settings is None else settings)]
        self.seed = seed
        self.estimator: Any = None
        self.chosen: dict[str, Any] = {}

    def fit(
        self,
        log: "BehaviorLog",
        *,
        validation: "BehaviorLog | None" = None,
        refit: bool = True,
    ) -> Self:
        """Learns from impressions.

        Args:
            log: Impressions with labels and a history, such as `split.train`. A `weight` column
                weighs them.
            validation: To choose settings by, such as `split.valid`.
            refit: Whether the chosen settings then learn from both logs. The features stay those
                that the first log taught.

        Returns:
            Itself.

        Raises:
            EmptyLogError: If a log has no impressions or no history.
            DataError: If a label is missing, or all labels are alike.
            ImportError: If scikit-learn is not installed.
        """
        _require_sklearn()
        rows, labels, weights = self._rows(log, self.features.fit_transform(log))
        self.chosen = self.settings[0]
        if validation is not None:
            others = self._rows(validation, self.features.transform(validation))
            losses = []
            for settings in self.settings:
                fitted = self._fitted(settings, rows, labels, weights)
                for tried, probabilities in self._stages(fitted, settings, others[0]):
                    losses.append((log_loss(others[1], probabilities, weights=others[2]), tried))
            self.chosen = min(losses, key=lambda one: one[0])[1]
            if refit:
                both = zip((rows, labels, weights), others, strict=True)
                rows, labels, weights = (np.concatenate(pair) for pair in both)
        elif self.method == "boosting":
            self.chosen = {"max_iter": _ROUNDS} | self.chosen
        self.estimator = self._fitted(self.chosen, rows, labels, weights)
        return self

    def predict(self, log: "BehaviorLog") -> np.ndarray:
        """Returns the probability of a label of 1 for every impression, float32 `[n]`.

        Args:
            log: Impressions and their history, such as `split.test`.

        Raises:
            NotFittedError: If `fit` was not called.
            EmptyLogError: If the log has no impressions or no history.
        """
        if self.estimator is None:
            raise NotFittedError("This ClickFloor is not fitted: call fit().")
        probabilities = self.estimator.predict_proba(self.features.transform(log))
        return probabilities[:, 1].astype(np.float32)

    def _rows(
        self, log: "BehaviorLog", features: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = as_labels(log.column("label")) > 0.5
        weights = as_weights(log.table["weight"] if log.has("weight") else None, len(log))
        return features, labels, weights

    def _fitted(
        self, settings: Mapping[str, Any], rows: np.ndarray, labels: np.ndarray, weights: np.ndarray
    ) -> Any:
        if labels.all() or not labels.any():
            raise DataError(
                f"All {len(labels):,} labels are {int(labels[0])}; there is nothing to tell apart. "
                "Give impressions of both kinds."
            )
        if self.method == "logistic":
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            model = LogisticRegression(max_iter=2000, random_state=self.seed).set_params(**settings)
            # In float32 the solver ends a thousandth away from where it would arrive.
            return make_pipeline(StandardScaler(), model).fit(
                rows.astype(np.float64),
                labels,
                standardscaler__sample_weight=weights,
                logisticregression__sample_weight=weights,
            )
        from sklearn.ensemble import HistGradientBoostingClassifier

        estimator = HistGradientBoostingClassifier(
            max_iter=_MOST_ROUNDS,
            # A hundredth of the rows, so that few labels can be split at all.
            min_samples_leaf=int(np.clip(len(rows) // 100, 5, 40)),
            l2_regularization=5.0,
            early_stopping=False,
            random_state=self.seed,
        )
        return estimator.set_params(**settings).fit(rows, labels, sample_weight=weights)

    def _stages(
        self, fitted: Any, settings: dict[str, Any], rows: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Gives settings and the probabilities they lead to; for boosting, after every tree."""
        if self.method == "logistic":
            yield settings, fitted.predict_proba(rows)[:, 1]
            return
        for rounds, probabilities in enumerate(fitted.staged_predict_proba(rows), start=1):
            yield settings | {"max_iter": rounds}, probabilities[:, 1]


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ClickFloor needs scikit-learn: pip install 'tfrec-llm[ranking]'"
        ) from error
