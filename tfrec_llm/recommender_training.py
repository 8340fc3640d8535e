"""How a recommender's model is trained."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfrec_llm.data.batches import PackedBatches
from tfrec_llm.data.sharded_batches import ShardedBatches
from tfrec_llm.evaluation.callback import RankingEvaluation
from tfrec_llm.training.best_weights import BestWeights
from tfrec_llm.training.checkpoint import TrainingCheckpoint
from tfrec_llm.training.distribution import distribution_scope, distribution_strategy
from tfrec_llm.training.fine_tuning import copy_tuning
from tfrec_llm.training.measures import TrainingMeasures
from tfrec_llm.training.optimizer_state import optimizer_state, restore_optimizer
from tfrec_llm.training.precision import fast_precision
from tfrec_llm.training.scoring_copy import ScoringCopy
from tfrec_llm.training.tracking import Tracking, tracked
from tfrec_llm.training.workers import is_first_worker

if TYPE_CHECKING:
    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.recommender import Recommender


def train(
    recommender: "Recommender",
    batches: PackedBatches | ShardedBatches,
    validation: "BehaviorLog | None",
    *,
    epochs: int,
    patience: int,
    metric: str,
    filter_seen: bool,
    checkpoint: str | os.PathLike[str] | None,
    tracking: Tracking,
    strategy: Any,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: Any,
) -> list[dict[str, float]]:
    """Trains `recommender.model`, see `Recommender.fit`; returns a dict an epoch."""
    scoring = recommender.model
    precision = recommender.precision
    precision = fast_precision() if precision == "auto" else precision
    # Half precision, averaging and several devices train a twin; the weights that score are
    # float32, in `scoring`, on one device.
    trained = scoring
    strategy = distribution_strategy("none" if strategy is None else strategy)
    if strategy is not None and keras.backend.backend() == "jax":
        raise ValueError(
            "On JAX a Recommender trains on one device. Train a model itself in "
            "distribution_scope(...), see the page on scaling."
        )
    if precision != "float32" or recommender.weight_averaging or strategy is not None:
        with distribution_scope(strategy):
            trained = recommender.make_model(
                scoring.encoder.vocab_size, scoring.encoder.num_behaviors, precision
            )
        copy_tuning(scoring.encoder, trained.encoder)
        trained.set_weights(scoring.get_weights())
    optimizer = recommender.make_optimizer(num_steps=epochs * len(batches))
    rows = min(batches.batch_size, batches.num_rows)
    loss = recommender.make_loss(num_positions=rows * batches.row_length)
    trained.compile(
        optimizer,
        loss=loss,
        jit_compile=recommender.jit_compile,
        steps_per_execution=recommender.steps_per_execution,
    )
    # A schedule counts steps from the first: it starts anew, and the moments with it.
    if recommender.moments is not None and strategy is None and recommender.schedule == "constant":
        restore_optimizer(optimizer, recommender.moments, trained.trainable_variables)
    # In order: each may read what those before it wrote into the logs.
    copy = ScoringCopy(trained, scoring, averaging=recommender.weight_averaging)
    watching: list[keras.callbacks.Callback] = [TrainingMeasures(batches), copy]
    best = None
    if validation is not None:
        name, _, length = metric.partition("@")
        watching.append(
            RankingEvaluation(
                recommender,
                validation,
                k=int(length or 10),
                filter_seen=filter_seen,
                metrics=tuple({"hr": 0, "ndcg": 0, name: 0}),
            )
        )
        best = BestWeights(scoring, monitor=f"val_{metric}", patience=patience)
        watching.append(best)
    curve: list[dict[str, float]] = []
    first_epoch = 0
    if checkpoint is not None:
        run = recommender.get_config() | {"behaviors": batches.num_behaviors, "metric": metric}
        kept = TrainingCheckpoint(checkpoint, run=run, best=best, scoring=scoring)
        first_epoch = kept.restore(trained)
        watching.append(kept)
        curve = list(kept.curve)
    batches.set_epoch(first_epoch)
    # One run a training, however many workers it has.
    recorded = tracking if is_first_worker(trained) else None
    with tracked(recorded, recommender.get_config()) as recording:
        history = trained.fit(
            batches,
            epochs=epochs,
            initial_epoch=first_epoch,
            shuffle=False,  # every epoch packs its rows in random order; shards come file by file
            callbacks=[*watching, *callbacks, *recording],
            verbose=verbose,
        )
    recommender.moments = None if strategy is not None else optimizer_state(optimizer)
    for index, epoch in enumerate(history.epoch):
        values = {name: float(series[index]) for name, series in history.history.items()}
        curve.append({"epoch": epoch, **values})
    return curve
