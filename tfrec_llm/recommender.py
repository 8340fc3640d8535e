"""The short way: a behaviour log in, recommendations out."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from tfrec_llm import baselines
from tfrec_llm.data.behavior_log import BehaviorLog
from tfrec_llm.data.feature_table import Catalogue
from tfrec_llm.data.objectives import objective_by_name
from tfrec_llm.data.sequences import UserSequences
from tfrec_llm.data.shards import Shards
from tfrec_llm.data.vocabulary import NUM_RESERVED, Vocabulary
from tfrec_llm.errors import NotFittedError
from tfrec_llm.evaluation.comparison import Comparison, compare
from tfrec_llm.evaluation.item_scores import ItemScores
from tfrec_llm.evaluation.model_scorer import model_item_scores, model_vectors_of, similarities
from tfrec_llm.evaluation.scorer import Scorer
from tfrec_llm.losses.catalog_cross_entropy import CatalogCrossEntropy
from tfrec_llm.losses.catalog_loss import CatalogLoss
from tfrec_llm.losses.sampled_cross_entropy import SampledCrossEntropy
from tfrec_llm.metrics.top_k import top_k
from tfrec_llm.models.behavior_encoder import BehaviorEncoder
from tfrec_llm.models.masked_behavior_model import MaskedBehaviorModel
from tfrec_llm.models.next_behavior_model import NextBehaviorModel
from tfrec_llm.optimizers.lazy_adam import LazyAdam
from tfrec_llm.recommender_data import batches_of
from tfrec_llm.recommender_features import ItemFeatures, grown_weight
from tfrec_llm.recommender_training import train
from tfrec_llm.saved_recommender import read_recommender, write_recommender
from tfrec_llm.training.fine_tuning import copy_tuning
from tfrec_llm.training.schedule import learning_rate_schedule
from tfrec_llm.training.scoring_copy import check_averaging
from tfrec_llm.training.tracking import Tracking

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MODELS = {"next": NextBehaviorModel, "masked": MaskedBehaviorModel}
_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "lazy_adam": LazyAdam,
}
_MODEL = ("tie_embeddings", "similarity", "temperature")
_BATCH = ("windows", "prefix_rate", "row_length")
_LOSSES = ("catalog", "sampled")


class Recommender(Scorer):
    """Trains a behaviour model on a log, evaluates it and recommends.

    Args:
        objective: `"next"` (every behaviour predicts the one after it) or
            `"masked"` (hidden behaviours are predicted from both sides).
        emb_dim: Width of item vectors and hidden states.
        num_layers: Number of Transformer blocks.
        num_heads: Number of attention heads.
        max_length: Newest behaviours of a user that are read.
        dropout: Share of inputs and sublayer outputs dropped in training.
        loss: `"catalog"` (full softmax), `"sampled"` (256 shared negatives,
            for catalogues of a hundred thousand items and more) or a
            `CatalogLoss`.
        optimizer: `"adam"`, `"adamw"`, or `"lazy_adam"`, which with the
            sampled loss makes a step's cost independent of the catalogue.
        learning_rate: The optimizer's, the highest where it changes.
        schedule: `"constant"`, or `"cosine"` or `"linear"`: falling to zero
            at the last of `epochs`.
        warmup: Share of all steps in which the learning rate first rises.
        weight_averaging: What the weights of an epoch's end count beside the
            next one's in an average that scores, such as 0.8; see
            `ScoringCopy`. 0 for none.
        batch_size: Packed rows a step; None takes about 4,096 behaviours.
        gradient_accumulation: Batches whose mean gradient makes one step,
            where a batch of the size wanted does not fit into memory.
        jit_compile: Whether XLA compiles the steps; `"auto"` leaves it to
            Keras, which does so on GPUs.
        steps_per_execution: Steps that one call of the compiled function
            takes; several spare small steps a wait for Python. Callbacks of
            batches, and Ctrl-C, then act after so many.
        min_count: Items that occur less often become unknown.
        precision: Keras dtype policy of training; `"auto"` takes bfloat16
            where the hardware multiplies it. Scores are always float32.
        seed: Of weights, packing, masks and dropout. `fit` sets Keras'
            global seed to it.
        item_features: Names of the catalogue's columns that items are read
            by beside their ids, or True for all; see `ItemEmbedding`. Items
            that are alike then share what is learned.
        new_items: Whether items of the catalogue without any behaviour join
            the vocabulary, too, to be recommended by their features alone;
            so do those below `min_count`. Needs `item_features`.
        feature_options: Of `FeatureEncoding.fit` (`min_count`, `max_values`,
            `max_words`) and `ItemEncoder` (`num_layers`, `num_heads`,
            `hid_dim`, `block`, `dropout`), and `id_dropout`, the share of
            ids left out in training, 0.2 if not given.
        objective_options: Of the objective, such as `{"mask_rate": 0.3}`.
        **options: Further options of `BehaviorEncoder`, such as
            `block="gated"` or `position_encoding="rotary"`; of
            `BehaviorModel`: `tie_embeddings`, `similarity`, `temperature`;
            and of `PackedBatches`: `windows`, `prefix_rate`, `row_length`.

    Attributes:
        model: The Keras model, in float32.
        vocabulary: The items and their indexes.
        histories: What the users of `fit`'s logs did.
        catalogue: The log's catalogue, if it had one.
        curve: A dict an epoch: loss, metrics, seconds.
        moments: Of the optimizer after the last training; None where there
            are none. They are saved, too.

    Example:
        >>> split = tfrec_llm.data.leave_last_out(tfrec_llm.data.ShopSimulator(80, 30).simulate())
        >>> rec = Recommender(emb_dim=16, num_layers=1).fit(split.train, epochs=1, verbose=0)
        >>> len(rec.recommend(users=rec.histories.user_ids[:2], k=3))
        6

    Reference:
        SASRec, https://arxiv.org/abs/1808.09781;
        BERT4Rec, https://arxiv.org/abs/1904.06690
    """

    histories: UserSequences
    streams = True

    def __init__(
        self,
        objective: Literal["next", "masked"] = "next",
        *,
        emb_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        max_length: int = 200,
        dropout: float = 0.2,
        loss: str | CatalogLoss = "catalog",
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        schedule: str = "constant",
        warmup: float = 0.0,
        weight_averaging: float = 0.0,
        batch_size: int | None = None,
        gradient_accumulation: int = 1,
        jit_compile: bool | Literal["auto"] = "auto",
        steps_per_execution: int = 1,
        min_count: int = 1,
        precision: str = "auto",
        seed: int = 0,
        item_features: bool | Sequence[str] = False,
        new_items: bool = False,
        feature_options: dict[str, Any] | None = None,
        objective_options: dict[str, Any] | None = None,
        **options: Any,
    ):
        for name, number in [
            ("gradient_accumulation", gradient_accumulation),
            ("steps_per_execution", steps_per_execution),
        ]:
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number}.")
        if isinstance(loss, str) and loss not in _LOSSES:
            raise ValueError(f"loss must be one of {_LOSSES} or a CatalogLoss, got {loss!r}.")
        self.objective = objective
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup = warmup
        self.weight_averaging = weight_averaging
        self.batch_size = batch_size
        self.gradient_accumulation = gradient_accumulation
        self.jit_compile = jit_compile
        self.steps_per_execution = steps_per_execution
        self.min_count = min_count
        self.precision = precision
        self.seed = seed
        self.item_features = item_features
        self.new_items = new_items
        self.feature_options = dict(feature_options or {})
        self.objective_options = dict(objective_options or {})
        self.batch_options = {name: options.pop(name) for name in _BATCH if name in options}
        self.model_options = {name: options.pop(name) for name in _MODEL if name in options}
        self.encoder_options = {
            "emb_dim": emb_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "max_length": max_length,
            "dropout": dropout,
            **options,
        }
        objective_by_name(objective, **self.objective_options)
        self._features: ItemFeatures | None = None
        if item_features:
            self._features = ItemFeatures(item_features, self.feature_options)
            self._features.check(emb_dim)
        elif new_items or self.feature_options:
            raise ValueError("new_items and feature_options need item_features.")
        # Made once for nothing, so that a misspelt or unfitting option is told here, not in fit.
        self.make_model(NUM_RESERVED + 1, num_behaviors=0, precision="float32")
        self.make_optimizer(num_steps=1)
        check_averaging(weight_averaging)
        self.model: Any = None
        self.curve: list[dict[str, float]] = []
        self._train: BehaviorLog | None = None
        # Of the optimizer of the last training, for the next; None where there are none.
        self.moments: list[np.ndarray] | None = None

    def fit(
        self,
        log: BehaviorLog | Shards,
        *,
        validation: BehaviorLog | None = None,
        epochs: int = 50,
        patience: int = 10,
        metric: str = "ndcg@10",
        filter_seen: bool = True,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        tracking: Tracking = None,
        strategy: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: Any = "auto",
    ) -> "Recommender":
        """Trains on a log; with `validation`, the best epoch's weights are kept.

        Args:
            log: Behaviours to learn from; of a log larger than memory, its
                `Shards`. Their users' histories stay on disk: `recommend`
                then takes `histories`.
            validation: Held-out behaviours, such as `split.valid` or
                `shards.validation`.
            epochs: Most epochs.
            patience: Epochs without a better `metric` after which it stops.
            metric: What `validation` is judged by: hr, ndcg, mrr, recall,
                precision or map, `@` a length.
            filter_seen: Whether the items of a user's history leave the
                ranking of `validation`.
            warm_start: Whether to go on from the weights there are, and with
                a constant learning rate from the optimizer's moments; items
                that are new in `log` join the vocabulary, and the features
                that its catalogue holds replace those there are.
            checkpoint: File that an interrupted training resumes from; it is
                written after every epoch and removed at the end. Ctrl-C
                writes it after the step in work.
            tracking: Tool that records every epoch: `"tensorboard"`,
                `"mlflow"` or `"wandb"`, or a dict of them to where the runs
                are kept, such as `{"tensorboard": "logs"}`.
            strategy: Devices to train on: a name or a ready strategy, as
                `tfrec_llm.training.distribution_strategy` takes it, such as
                `"auto"`; on TensorFlow. None for one device.
            callbacks: Further Keras callbacks; `val_ndcg@10` and the like are
                in their logs.
            verbose: As in `keras.Model.fit`.

        Returns:
            Itself.

        Raises:
            EmptyLogError: If there is nothing to learn from.
            NullValueError: If a row lacks its user, item or time.
            DataError: If `item_features` are wanted and there is no catalogue,
                or one of them has no value for any item of `log`.
            SavedModelError: If `checkpoint` is of another training.
            ImportError: If the tool of `tracking` is not installed.
        """
        keras.utils.set_random_seed(self.seed)
        goes_on = warm_start and self.model is not None
        if not goes_on:
            self.moments = None
        batches = batches_of(self, log, goes_on=goes_on)
        self.curve = train(
            self,
            batches,
            validation,
            epochs=epochs,
            patience=patience,
            metric=metric,
            filter_seen=filter_seen,
            checkpoint=checkpoint,
            tracking=tracking,
            strategy=strategy,
            callbacks=callbacks,
            verbose=verbose,
        )
        if validation is not None:
            before = validation.history if isinstance(log, Shards) else log
            known = validation if before is None else before.concat(validation)
            self.histories = self.sequences(known)
        return self

    def score(self, sequences: UserSequences) -> np.ndarray:
        return self.item_scores(sequences).whole_rows(NUM_RESERVED)

    def item_scores(self, sequences: UserSequences) -> ItemScores:
        self._require_fitted()
        return model_item_scores(self.model, self.vocabulary, sequences)

    def vectors_of(self, items: np.ndarray) -> np.ndarray:
        self._require_fitted()
        return model_vectors_of(self.model, items)

    def compare(
        self,
        log: BehaviorLog,
        *,
        scorers: dict[str, Scorer] | None = None,
        train: BehaviorLog | None = None,
        **options: Any,
    ) -> Comparison:
        """Evaluates the model beside the floors that it must beat to be worth its price.

        Args:
            log: Held-out behaviours, such as `split.test`.
            scorers: What to compare with, by name; None for popularity,
                last-item Markov chain and sequential rules.
            train: What the floors are fitted on; needed after `load` only.
            **options: As in `evaluate`: `k`, `filter_seen`, ...
        """
        self._require_fitted()
        train = self._train if train is None else train
        if scorers is None:
            if train is None:
                raise NotFittedError(
                    "A loaded recommender does not hold its training log: pass train=, which the "
                    "floors are fitted on."
                )
            floors: dict[str, baselines.Baseline] = {
                "popularity": baselines.Popularity(),
                "Markov chain": baselines.MarkovChain(),
                "sequential rules": baselines.SequentialRules(),
            }
            scorers = {
                name: floor.fit(train, vocabulary=self.vocabulary) for name, floor in floors.items()
            }
        return compare({**scorers, f"{self.objective} behaviour": self}, log, **options)

    def similar_items(self, items: Sequence[Any], *, k: int = 10) -> "pd.DataFrame":
        """Returns the items whose vectors point most nearly the same way.

        Args:
            items: Raw ids.
            k: Similar items of each.

        Returns:
            Columns item, rank (from 1), similar, score (cosine, -1..1).

        Raises:
            UnknownItemError: If an item is not in the vocabulary.
        """
        import pandas as pd

        self._require_fitted()
        indexes = self.vocabulary.encode(items)
        vectors = keras.ops.convert_to_numpy(self.model.item_vectors)
        scores = similarities(vectors, indexes)
        scores[:, :NUM_RESERVED] = -np.inf
        scores[np.arange(len(indexes)), indexes] = -np.inf
        # A catalogue of one item has none to show: its place holds -1.
        best = top_k(scores, max(1, min(k, len(self.vocabulary) - 1)))
        asked, place = np.nonzero(best >= 0)
        similar = best[asked, place]
        return pd.DataFrame(
            {
                "item": self.vocabulary.decode(indexes[asked]),
                "rank": place + 1,
                "similar": self.vocabulary.decode(similar),
                "score": scores[asked, similar],
            }
        )

    def extend(self, items: Any, *, catalogue: Catalogue | None = None) -> "Recommender":
        """Adds new items to the vocabulary; the scores of the old ones stay as they are.

        A new item is scored by its features alone, if the recommender reads
        `item_features`; else it starts as the mean of all item vectors, a
        middling item. `fit(..., warm_start=True)` learns more of it.

        Args:
            items: Raw ids; those known already change nothing.
            catalogue: What is known of the new items; its rows join the
                recommender's catalogue. An item that neither holds has no
                features.

        Returns:
            Itself.

        Raises:
            DataError: If a feature is of another type than in training.
        """
        self._require_fitted()
        vocabulary = self.vocabulary.extend(items)
        if catalogue is not None and self.catalogue is not None:
            catalogue = self.catalogue.updated(catalogue)
        catalogue = self.catalogue if catalogue is None else catalogue
        if vocabulary.size > self.vocabulary.size:
            self.model = self._grown_model(vocabulary, catalogue)
        self.vocabulary, self.catalogue = vocabulary, catalogue
        return self

    def _grown_model(self, vocabulary: Vocabulary, catalogue: Catalogue | None) -> Any:
        old = self.model
        model = self.make_model(vocabulary.size, old.encoder.num_behaviors, "float32")
        for old_weight, new_weight in zip(old.weights, model.weights, strict=True):
            values = keras.ops.convert_to_numpy(old_weight)
            if old_weight.shape != new_weight.shape:
                values = grown_weight(
                    values, new_weight.shape[0], with_features=self._features is not None
                )
            new_weight.assign(values)
        if self._features is not None:
            self._features.put(model, catalogue, vocabulary, self.vocabulary.size)
        return model

    def copy(self) -> "Recommender":
        """Returns a recommender that knows the same; training it leaves this one as it is."""
        self._require_fitted()
        twin = type(self).from_config(self.get_config())
        if self._features is not None and twin._features is not None:
            twin._features.encoding = self._features.encoding
        encoder = self.model.encoder
        twin.model = twin.make_model(encoder.vocab_size, encoder.num_behaviors, "float32")
        copy_tuning(encoder, twin.model.encoder)
        twin.model.set_weights(self.model.get_weights())
        for name in ("vocabulary", "histories", "catalogue", "curve", "moments", "_train"):
            setattr(twin, name, getattr(self, name))
        return twin

    def plot_curve(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws loss and validation metrics over the epochs.

        Args:
            path: Where to save the picture; its ending gives the format.
        """
        from tfrec_llm.evaluation.curve import plot_curve

        self._require_fitted()
        return plot_curve(self.curve, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves everything that `load` needs into a folder, whole or not at all.

        Args:
            path: The folder; one that is there is replaced when the new one
                is complete.

        Raises:
            SavedModelError: If it cannot be written, for instance on a full
                disk. What was at `path` stays.
        """
        self._require_fitted()
        write_recommender(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recommender":
        """Loads what `save` wrote; scores are equal.

        Args:
            path: The folder.

        Raises:
            SavedModelError: If a file is missing or damaged; it says which.
        """
        saved = read_recommender(Path(path))
        recommender = cls.from_config(saved.config)
        recommender.vocabulary = saved.known.vocabulary
        recommender.model = saved.model
        if recommender._features is not None:
            recommender._features.encoding = saved.model.encoder.item_embedding.features.encoding
        assert saved.known.histories is not None
        recommender.histories = saved.known.histories
        recommender.catalogue = saved.known.catalogue
        recommender.curve = saved.curve
        recommender.moments = saved.moments
        return recommender

    def export(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Writes a SavedModel that TensorFlow Serving loads as it stands.

        Raw ids go in and out; the vocabulary, the seen filter, exclusions and top-k are inside,
        and scores are those of `recommend`. It holds no user's history.

        Args:
            path: Folder of the version, whose name is a number, such as
                `"serving/shop/1"`; or of the model, in which the next version
                is written. It is there whole or not at all.
            **options: Of `tfrec_llm.serving.export_model`: `k`, `filter_seen`,
                `candidates`, `exclude`, `precision`, `profiles`, `index`,
                `snapshot_since`, and `format`, such as `"onnx"`.

        Returns:
            Folder of the version, or the file.

        Raises:
            SavedModelError: If it cannot be written, or the folder holds
                something else. What was there stays.
        """
        from tfrec_llm.serving.export import export_model

        return export_model(self, path, **options)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make a recommender like this one, JSON-able."""
        loss = self.loss
        return {
            "objective": self.objective,
            "loss": loss if isinstance(loss, str) else keras.saving.serialize_keras_object(loss),
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "weight_averaging": self.weight_averaging,
            "batch_size": self.batch_size,
            "gradient_accumulation": self.gradient_accumulation,
            "jit_compile": self.jit_compile,
            "steps_per_execution": self.steps_per_execution,
            "min_count": self.min_count,
            "precision": self.precision,
            "seed": self.seed,
            "item_features": self.item_features
            if isinstance(self.item_features, bool)
            else list(self.item_features),
            "new_items": self.new_items,
            "feature_options": self.feature_options,
            "objective_options": self.objective_options,
            **self.batch_options,
            **self.model_options,
            **self.encoder_options,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Recommender":
        """Returns a recommender, not fitted, of what `get_config` gave."""
        loss = config.get("loss")
        if isinstance(loss, dict):
            config = config | {"loss": keras.saving.deserialize_keras_object(loss)}
        return cls(**config)

    def __repr__(self) -> str:
        fitted = "not fitted" if self.model is None else f"{len(self.vocabulary)} items"
        return f"<Recommender {self.objective} behaviour, {fitted}>"

    def make_model(self, vocab_size: int, num_behaviors: int, precision: str) -> Any:
        """Returns a new, built model of this recommender's options."""
        emb_dim = self.encoder_options["emb_dim"]
        read: dict[str, Any] = {}
        scored = dict(self.model_options)
        if self._features is not None and self._features.encoding is not None:
            embedding = functools.partial(self._features.embedding, vocab_size, emb_dim)
            read["item_embedding"] = embedding(precision, "item_embedding")
            if not scored.get("tie_embeddings", True):
                scored["output_embedding"] = embedding("float32", "output_embedding")
        encoder = BehaviorEncoder(
            vocab_size, num_behaviors=num_behaviors, dtype=precision, **self.encoder_options, **read
        )
        model = _MODELS[self.objective](encoder, **scored)
        model.build()
        return model

    def make_optimizer(self, *, num_steps: int) -> keras.optimizers.Optimizer:
        """Returns a new optimizer for a training of `num_steps` steps."""
        if self.optimizer not in _OPTIMIZERS:
            raise ValueError(
                f"optimizer must be one of {sorted(_OPTIMIZERS)}, got {self.optimizer!r}."
            )
        rate = learning_rate_schedule(
            self.schedule, self.learning_rate, num_steps=num_steps, warmup=self.warmup
        )
        # Keras takes 1 for an error.
        steps = self.gradient_accumulation if self.gradient_accumulation > 1 else None
        return _OPTIMIZERS[self.optimizer](rate, gradient_accumulation_steps=steps)

    def make_loss(self, *, num_positions: int) -> CatalogLoss:
        """Returns the loss of steps of so many positions, a new one where it was given by name."""
        if isinstance(self.loss, CatalogLoss):
            return self.loss
        if self.loss == "sampled":
            return SampledCrossEntropy(seed=self.seed)
        # Every chunk is traced by itself: small steps begin sooner with few.
        return CatalogCrossEntropy(num_chunks=min(16, max(1, num_positions // 256)))

    def _kinds(self) -> tuple[str, ...] | None:
        """The kinds of behaviour that the model there is numbers, or None for the log's own."""
        return None if self.model is None else self.histories.behavior_vocabulary or None

    def _require_fitted(self) -> None:
        if self.model is None:
            raise NotFittedError("This Recommender is not fitted: call fit() or load().")
