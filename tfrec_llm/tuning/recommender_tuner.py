"""The search for a recommender's setting."""

import copy
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras_tuner

from tfrec_llm.data.atomic import replace_file
from tfrec_llm.errors import DataError
from tfrec_llm.metrics.ranking import RANKING_METRICS
from tfrec_llm.recommender import Recommender
from tfrec_llm.tuning.spaces import next_space
from tfrec_llm.tuning.trials import MODEL, RESULT, Trials

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog


class _DefaultsFirst:
    """The first trial takes the space's defaults, so that a search shows what it adds to them."""

    trials: dict[str, Any]
    hyperparameters: Any

    def _random_values(self) -> dict[str, Any] | None:
        if self.trials:
            return super()._random_values()  # type: ignore[misc]
        chosen = keras_tuner.HyperParameters()
        for each in self.hyperparameters.space:
            chosen.merge([each])
            if chosen.is_active(each):
                chosen.values[each.name] = each.default
        return chosen.values


class _Random(_DefaultsFirst, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(_DefaultsFirst, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


class _Hyperband(_DefaultsFirst, keras_tuner.oracles.HyperbandOracle):
    pass


class _RecommenderHyperModel(keras_tuner.HyperModel):
    """Turns what the search chose into a recommender."""

    def __init__(self, space: Callable[[Any], dict[str, Any]], fixed: dict[str, Any]):
        super().__init__()
        self.space = space
        self.fixed = fixed

    def build(self, hp: Any) -> Recommender:
        return Recommender(**(self.space(hp) | self.fixed))


class RecommenderTuner(keras_tuner.Tuner):
    """Searches for the setting of a `Recommender` that ranks held-out behaviours best.

    A KerasTuner `Tuner`: `search` runs the trials, several processes share
    them through KerasTuner's chief and workers (`KERASTUNER_TUNER_ID`,
    `KERASTUNER_ORACLE_IP`, `KERASTUNER_ORACLE_PORT`, and one `directory`).
    The first trial is the space's defaults. A search that was killed goes on
    with the same call: finished trials are kept, the one that ran continues
    from its last epoch. A trial that fails is marked so, with its traceback in
    `Trials.failures`; three in a row end the search.

    Args:
        space: Function of `keras_tuner.HyperParameters` that returns arguments
            of `Recommender`, such as `next_space` or `masked_space`.
        method: `"random"`, `"bayesian"` (Gaussian process, after as many
            random trials as `num_initial_points` says, 10 if not given) or
            `"hyperband"` (many short trials, of which the best are trained
            longer, each time from the start, as a schedule depends on the
            number of epochs).
        metric: What validation is judged by, as in `Recommender.fit`.
        max_trials: Trials of a random or Bayesian search; Hyperband's follow
            from `epochs`.
        epochs: Most epochs of a trial.
        fixed: Arguments of `Recommender` that all trials share; they come
            before the space's.
        directory: Folder of the searches.
        project_name: Folder of this search in it.
        seed: Of the search. The trials' own is `fixed["seed"]`.
        overwrite: Whether to begin anew where a search is in the folder.
        **oracle_options: Of KerasTuner's oracle, such as
            `num_initial_points`, `factor`, `hyperband_iterations` or
            `max_consecutive_failed_trials`.

    Attributes:
        results: The `Trials` so far.

    Raises:
        ValueError: If `method` or `metric` has an unknown name, or an argument that the
            space or `fixed` gives does not fit `Recommender`.

    Example:
        >>> import tempfile
        >>> split = tfrec_llm.data.leave_last_out(tfrec_llm.data.ShopSimulator(60, 20).simulate())
        >>> def space(hp):
        ...     return {"dropout": hp.Choice("dropout", [0.1, 0.3])}
        >>> tuner = RecommenderTuner(
        ...     space, method="random", max_trials=1, epochs=1, directory=tempfile.mkdtemp(),
        ...     fixed={"emb_dim": 8, "num_layers": 1},
        ... )
        >>> tuner.search(split.train, validation=split.valid, verbose=0)
        >>> tuner.results.best_setting["dropout"]
        0.1
        >>> rec = tuner.results.best_recommender()

    Reference:
        KerasTuner, https://keras.io/keras_tuner/;
        Hyperband, https://arxiv.org/abs/1603.06560
    """

    def __init__(
        self,
        space: Callable[[Any], dict[str, Any]] = next_space,
        *,
        method: Literal["random", "bayesian", "hyperband"] = "bayesian",
        metric: str = "ndcg@10",
        max_trials: int = 20,
        epochs: int = 50,
        fixed: dict[str, Any] | None = None,
        directory: str | os.PathLike[str] = "tuning",
        project_name: str = "recommender",
        seed: int = 0,
        overwrite: bool = False,
        **oracle_options: Any,
    ):
        if metric.partition("@")[0] not in RANKING_METRICS:
            raise ValueError(f"metric must be one of {', '.join(RANKING_METRICS)}, got {metric!r}.")
        self.metric = metric
        self.epochs = epochs
        objective = keras_tuner.Objective(f"val_{metric}", direction="max")
        # KerasTuner takes a seed of 0 for none.
        options = {"objective": objective, "seed": seed + 1, **oracle_options}
        if method == "random":
            oracle = _Random(max_trials=max_trials, **options)
        elif method == "bayesian":
            options.setdefault("num_initial_points", 10)
            oracle = _Bayesian(max_trials=max_trials, **options)
        elif method == "hyperband":
            oracle = _Hyperband(max_epochs=epochs, **options)
        else:
            raise ValueError(f"method must be random, bayesian or hyperband, got {method!r}.")
        super().__init__(
            oracle,
            _RecommenderHyperModel(space, dict(fixed or {})),
            directory=str(directory),
            project_name=project_name,
            overwrite=overwrite,
        )

    @property
    def results(self) -> Trials:
        """The trials so far, of all workers."""
        return Trials(self.project_dir)

    def run_trial(
        self,
        trial: Any,
        train: "BehaviorLog",
        *,
        validation: "BehaviorLog",
        callbacks: Any = (),
        verbose: Any = "auto",
        **fit_options: Any,
    ) -> dict[str, float]:
        """Trains one setting; `search` calls it with its own arguments.

        Args:
            trial: What KerasTuner chose.
            train: Behaviours to learn from.
            validation: Held-out behaviours.
            callbacks: Keras callbacks; every trial gets copies.
            verbose: As in `Recommender.fit`.
            **fit_options: Further ones of `Recommender.fit`, such as
                `patience`, `filter_seen` and `strategy`.

        Returns:
            The best epoch's metric on validation, as `val_ndcg@10`.
        """
        folder = Path(self.get_trial_dir(trial.trial_id))
        folder.mkdir(parents=True, exist_ok=True)
        chosen = trial.hyperparameters
        name = f"val_{self.metric}"
        result: dict[str, Any] = {}
        begin = time.perf_counter()
        try:
            recommender = self.hypermodel.build(chosen)
            result["setting"] = recommender.get_config()
            recommender.fit(
                train,
                validation=validation,
                metric=self.metric,
                epochs=chosen.values.get("tuner/epochs", self.epochs),
                checkpoint=folder / "training.npz",
                callbacks=copy.deepcopy(list(callbacks)),
                verbose=verbose,
                **fit_options,
            )
        except DataError as error:
            # No setting mends the data: the next trial would fail alike.
            raise keras_tuner.errors.FatalValueError(str(error)) from error
        except Exception:
            _write(folder, result | {"failure": traceback.format_exc()})
            raise
        result |= {
            "score": max(row[name] for row in recommender.curve),
            "epochs": len(recommender.curve),
            "seconds": time.perf_counter() - begin,
            "curve": recommender.curve,
        }
        # First the result, then the look at the others: of two workers, one sees both.
        _write(folder, result)
        best = self.results.best_trial
        if best == trial.trial_id:
            recommender.save(folder / MODEL)
            for other in Path(self.project_dir).glob(f"trial_*/{MODEL}"):
                if other.parent != folder:
                    shutil.rmtree(other, ignore_errors=True)
        return {name: result["score"]}

    def load_model(self, trial: Any) -> Recommender:
        """Returns a trial's recommender; only the best trial's is kept."""
        return Recommender.load(Path(self.get_trial_dir(trial.trial_id)) / MODEL)


def _write(folder: Path, result: dict[str, Any]) -> None:
    with replace_file(folder / RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
