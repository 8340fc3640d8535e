"""What a recommender takes up from the log it is trained on."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_llm.data.batches import PackedBatches
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.objectives import objective_by_name
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.sharded_batches import ShardedBatches
from tfrec_llm.data.shards import Shards
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import DataError
from tfrec_llm.recommender_features import mark_seen

if TYPE_CHECKING:
    from tfrec_llm.recommender import Recommender


def batches_of(
    recommender: "Recommender", log: BehaviorLog | Shards, *, goes_on: bool
) -> PackedBatches | ShardedBatches:
    """Takes a log's items, features and histories up and returns its batches.

    Args:
        recommender: Gets vocabulary, catalogue, histories and, if it has none, a model.
        log: What is trained on. The histories of shards stay on disk.
        goes_on: Whether training goes on from the model there is.
    """
    if isinstance(log, Shards):
        return _batches_of_shards(recommender, log, goes_on)
    return _batches_of_log(recommender, log, goes_on)


def _batches_of_log(rec: "Recommender", log: BehaviorLog, goes_on: bool) -> PackedBatches:
    log.require_complete()
    if goes_on:
        rec.extend(log.item, catalogue=log.catalogue)
        if rec.new_items and rec.catalogue is not None:
            rec.extend(rec.catalogue.ids)
    else:
        rec.model, rec.catalogue = None, log.catalogue
        rec.vocabulary = Vocabulary.fit(log.item, min_count=rec.min_count)
        if rec._features is not None:
            rec._features.fit(rec.catalogue, rec.vocabulary)
        if rec.new_items and rec.catalogue is not None:
            rec.vocabulary = rec.vocabulary.extend(rec.catalogue.ids)
    sequences = UserSequences.from_log(log, rec.vocabulary, behaviors=rec._kinds())
    batches = PackedBatches(sequences, **_options(rec), **rec.batch_options)
    if rec.model is None:
        kinds = len(sequences.behavior_vocabulary)
        rec.model = rec.make_model(rec.vocabulary.size, kinds, "float32")
    if rec._features is not None:
        rec._features.put(rec.model, rec.catalogue, rec.vocabulary, NUM_RESERVED)
        occurs = np.bincount(sequences.items, minlength=rec.vocabulary.size)
        counts = occurs if goes_on else rec.vocabulary.counts
        mark_seen(rec.model, counts > 0, only=not goes_on)
    rec.histories, rec._train = sequences, log
    return batches


def _batches_of_shards(rec: "Recommender", shards: Shards, goes_on: bool) -> ShardedBatches:
    unfit = {"min_count": rec.min_count > 1, "item_features": bool(rec.item_features)}
    unfit["prefix_rate"] = bool(rec.batch_options.get("prefix_rate"))
    for name, wanted in unfit.items():
        if wanted:
            raise ValueError(
                f"{name} does not go with shards. min_count belongs to Shards.write; features and "
                "prefixes need a BehaviorLog."
            )
    if goes_on and not rec.vocabulary.ids.equals(shards.vocabulary.ids):
        raise DataError(
            "The shards have other items than the recommender. A warm start takes new items from "
            "a BehaviorLog only."
        )
    options = {name: value for name, value in rec.batch_options.items() if name != "prefix_rate"}
    batches = ShardedBatches(shards, **_options(rec), **options)
    if not goes_on:
        rec.vocabulary, rec.catalogue = shards.vocabulary, None
        kinds = len(shards.behavior_vocabulary)
        rec.model = rec.make_model(rec.vocabulary.size, kinds, "float32")
    rec.histories, rec._train = shards.read([0]).take([]), None
    return batches


def _options(rec: "Recommender") -> dict[str, Any]:
    """Returns what batches of a log and of shards are made with alike."""
    return {
        "objective": objective_by_name(rec.objective, **rec.objective_options),
        "max_length": rec.encoder_options["max_length"],
        "batch_size": rec.batch_size,
        "seed": rec.seed,
    }
