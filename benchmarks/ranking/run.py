"""Clicks and conversions from few labels and many: floors, from scratch, pre-trained.

    python benchmarks/ranking/run.py completejourney [--seeds 0 1 2] [--shares 0.01 0.1 1.0]

For every seed and share of the labels: gradient boosting and logistic regression on hand-made
features; the plain model of a user's states and an item's vector; the full ranking model from
scratch; the same, pre-trained on all behaviours before the test; both with the features as
context of the impressions; and blends with the floors.
All choices are made on validation. Replaces results/DATA.json after every share; what is in it
already, of the same settings, is not measured again.
"""

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
import keras
import numpy as np
import pyarrow as pa
from problems import PROBLEMS, Problem, problem
from reporting import machine, write

from tfrec_llm import Recommender
from tfrec_llm.baselines import ClickFloor
from tfrec_llm.data import BehaviorLog, FeatureEncoding, RankingBatches, Vocabulary, ranking_batches
from tfrec_llm.evaluation import evaluate_probabilities
from tfrec_llm.layers import (
    FeatureEmbedding,
    FeatureLookup,
    ItemContents,
    ItemEmbedding,
    UserEmbedding,
)
from tfrec_llm.models import ClickModel
from tfrec_llm.training import freeze, freeze_deep, unfreeze, unfreeze_deep

HERE = Path(__file__).parent
METRICS = ("auc", "grouped_auc", "log_loss", "calibration_error")
EMB_DIM = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--epochs", type=int, default=40, help="most epochs of the ranking models")
    parser.add_argument("--pre-training", type=int, help="epochs, instead of the problem's")
    parser.add_argument(
        "--max-length", type=int, help="newest behaviours, instead of the problem's"
    )
    parser.add_argument("--models", type=Path, help="folder that keeps what was pre-trained")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    asked = problem(arguments.data)
    if arguments.pre_training is not None:
        asked.pre_training = arguments.pre_training
    asked.max_length = arguments.max_length or asked.max_length
    result: dict[str, Any] = {
        "data": arguments.data,
        "machine": machine("tfrec-llm", "keras", "tensorflow", "scikit-learn"),
        "counts": {
            name: {"impressions": len(part), "positive": int(truth(part).sum())}
            for name, part in vars(asked.split).items()
        },
        "settings": {"emb_dim": EMB_DIM, "epochs": arguments.epochs} | asked.settings,
    }
    path = arguments.results / f"{arguments.data}.json"
    result["runs"] = kept_runs(path, result["settings"])
    done = {(run["seed"], run["share"]) for run in result["runs"]}
    for seed in arguments.seeds:
        if all((seed, share) in done for share in arguments.shares):
            continue
        kept = arguments.models and arguments.models / f"{arguments.data}_{seed}.tfrec"
        bench = Bench(asked, seed, arguments.epochs, kept)
        for share in arguments.shares:
            if (seed, share) in done:
                continue
            result["runs"].append({"seed": seed, "share": share, **bench.measure(share)})
            result["summary"] = summary(result["runs"])
            write(path, result)
            print(table(result["summary"]))


def kept_runs(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what the file holds already of these settings."""
    before = json.loads(path.read_text()) if path.exists() else {}
    return before["runs"] if before.get("settings") == settings else []


class Bench:
    """One seed: what is fitted once, and what is measured at each share of the labels."""

    def __init__(self, asked: Problem, seed: int, epochs: int, kept: Path | None = None):
        self.problem = asked
        self.seed = seed
        self.epochs = epochs
        self.kept = kept
        self.vocabulary = asked.item_vocabulary()
        catalogue = asked.candidate_catalogue
        self.candidates = self.vocabulary if asked.contents is None else Vocabulary(catalogue.ids)
        users = asked.split.train.users
        assert users is not None
        self.profiles = Vocabulary(users.ids)
        # Fitted on what is known before the test: the candidates and users of the training part.
        shown = catalogue.lookup(Vocabulary.fit(asked.split.train.item).ids)
        self.item_encoding = FeatureEncoding.fit(
            shown.select(asked.candidate_features), columns=asked.candidate_features
        )
        self.user_encoding = FeatureEncoding.fit(users, columns=asked.user_features)
        self.context = (
            FeatureEncoding.fit(asked.split.train.table, columns=asked.context)
            if asked.context
            else None
        )
        self.plain_context = self.context
        self.base_rate = 0.5
        begin = time.perf_counter()
        self.pre_trained = self.pre_train()
        self.pre_training_seconds = time.perf_counter() - begin

    def pre_train(self) -> Recommender:
        found = self.recommender()
        if self.kept is not None and self.kept.exists():
            kept = Recommender.load(self.kept)
            if kept.get_config() != found.get_config():
                raise SystemExit(f"{self.kept} was trained with other settings: delete it.")
            return kept
        found.fit(self.problem.behaviors, epochs=self.problem.pre_training, verbose=2)
        if self.kept is not None:
            found.save(self.kept)
        return found

    def recommender(self) -> Recommender:
        return Recommender(
            "next",
            emb_dim=EMB_DIM,
            max_length=self.problem.max_length,
            min_count=self.problem.min_count,
            dropout=0.3,
            position_encoding="rotary",
            windows="random",
            weight_averaging=0.5,
            batch_size=self.problem.pre_training_rows,
            seed=self.seed,
        )

    def measure(self, share: float) -> dict[str, Any]:
        """Returns every model's figures at a share of the labels."""
        split, readable = self.problem.split, self.problem.readable
        rng = np.random.default_rng([self.seed, int(1e6 * share)])
        count = max(20, round(share * len(split.train)))
        labels = truth(split.train)
        rows = np.sort(rng.permutation(len(labels))[:count])
        while labels[rows].sum() < 2:  # nothing could be learned
            rows = np.sort(rng.permutation(len(labels))[:count])
        of_valid: dict[str, np.ndarray] = {}
        of_test: dict[str, np.ndarray] = {}
        seconds: dict[str, float] = {}

        def keep(name: str, predict: Any, begin: float) -> None:
            of_valid[name], of_test[name] = predict(split.valid), predict(split.test)
            seconds[name] = round(time.perf_counter() - begin, 1)
            print(f"  {name}: {seconds[name]} s", flush=True)

        for method in ("boosting", "logistic"):
            begin = time.perf_counter()
            floor = ClickFloor(method, features=self.problem.counted, seed=self.seed)
            floor.fit(split.train.take(rows), validation=split.valid, refit=False)
            keep(f"{method} on counts", floor.predict, begin)

        parts = {
            "train": readable.train.take(rows),
            "valid": readable.valid,
            "test": readable.test,
        }
        self.base_rate = float(labels[rows].mean())
        pre_trained = [
            functools.partial(self.pre_trained_model, affinity)
            for affinity in self.problem.affinity
        ]
        for name, makes, freezing in (
            ("states and item", [self.plain_model], [False]),
            ("ranking from scratch", [self.full_model], [False]),
            ("ranking, pre-trained", pre_trained, [False, True]),
            ("ranking with counts, from scratch", [self.full_model], [False]),
            ("ranking with counts, pre-trained", pre_trained, [False, True]),
        ):
            begin = time.perf_counter()
            if name == "ranking with counts, from scratch":
                parts, self.context = self.with_counts(parts, rows)
            model = self.trained(makes, parts["train"], parts["valid"], freezing)
            of = {id(split.valid): parts["valid"], id(split.test): parts["test"]}
            keep(name, lambda part, m=model, of=of: self.predict(m, of[id(part)]), begin)
        self.context = self.plain_context

        for ours in ("ranking, pre-trained", "ranking with counts, pre-trained"):
            for floor in ("boosting on counts", "logistic on counts"):
                weight = blend_weight(truth(split.valid), of_valid[ours], of_valid[floor])
                of_test[f"{ours} + {floor}"] = blended(of_test[ours], of_test[floor], weight)
        return {
            "labels": count,
            "positive": int(labels[rows].sum()),
            "seconds": seconds,
            "pre_training_seconds": round(self.pre_training_seconds, 1),
            "test": {name: figures(split.test, found) for name, found in of_test.items()},
        }

    def batches(
        self, part: BehaviorLog, *, training: bool = False, batch_size: int = 256, **options: Any
    ) -> RankingBatches:
        return ranking_batches(
            part,
            self.vocabulary,
            candidates=self.candidates,
            profiles=self.profiles,
            context=self.context,
            max_length=self.problem.max_length,
            batch_size=batch_size,
            shuffle=training,
            seed=self.seed,
            **{"histories": "shared" if training else "own"} | options,
        )

    def plain_model(self) -> ClickModel:
        """p = sigmoid(w^T relu(W [H_u ; G_i])), of states and of candidates' own vectors."""
        encoder = self.recommender().make_model(self.vocabulary.size, 0, "float32").encoder
        own = None
        if self.problem.contents is not None:
            own = ItemEmbedding(self.candidates.size, EMB_DIM)
        return ClickModel(
            encoder, candidate_embedding=own, interest=None, product=False, dropout=0.3
        )

    def full_model(self) -> ClickModel:
        return ClickModel(**self.parts(pre_trained=False))

    def pre_trained_model(self, affinity: bool) -> ClickModel:
        return ClickModel(**self.parts(pre_trained=True) | {"affinity": affinity})

    def with_counts(
        self, parts: dict[str, BehaviorLog], rows: np.ndarray
    ) -> tuple[dict[str, BehaviorLog], FeatureEncoding]:
        """Returns the impressions with the floors' features as a vector, and how to read it."""
        split, counted = self.problem.split, self.problem.counted
        counts = {"train": counted.fit_transform(split.train.take(rows))}
        counts |= {name: counted.transform(getattr(split, name)) for name in ("valid", "test")}
        mean, deviation = counts["train"].mean(axis=0), counts["train"].std(axis=0) + 1e-9
        found = {}
        for name, part in parts.items():
            near = np.clip((counts[name] - mean) / deviation, -5, 5).astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(near.ravel()), near.shape[1])
            found[name] = BehaviorLog(
                part.table.append_column("counts", column),
                catalogue=part.catalogue,
                users=part.users,
                history=part.history,
                labels=part.labels,
            )
        encoding = FeatureEncoding.fit(
            found["train"].table, columns=[*self.problem.context, "counts"]
        )
        return found, encoding

    def parts(self, pre_trained: bool) -> dict[str, Any]:
        """Returns what the full model reads, new layers each time."""
        fresh = self.recommender().make_model(self.vocabulary.size, 0, "float32").encoder
        if pre_trained:
            fresh.set_weights(self.pre_trained.model.encoder.get_weights())
        problem, lookup = self.problem, self.item_lookup()
        own = contents = None
        if problem.contents is not None:
            own = ItemEmbedding(self.candidates.size, EMB_DIM, features=lookup, id_dropout=0.5)
            about = problem.contents
            contents = ItemContents(
                self.candidates.size,
                self.vocabulary.size,
                candidates=self.candidates.encode(about["candidate"]),
                items=self.vocabulary.encode(about["item"], on_unknown="unknown"),
            )
        users = problem.split.train.users
        assert users is not None
        profiles = FeatureLookup.of(self.user_encoding, users, self.profiles)
        return {
            "encoder": fresh,
            "candidate_embedding": own,
            "contents": contents,
            "user_embedding": UserEmbedding(
                self.profiles.size, EMB_DIM, features=profiles, id_dropout=0.5
            ),
            "context": None if self.context is None else FeatureEmbedding(self.context, EMB_DIM),
            "wide": self.context is not None,
            "affinity": pre_trained,
            "base_rate": self.base_rate,
            "dropout": 0.3,
        }

    def item_lookup(self) -> FeatureLookup:
        return FeatureLookup.of(
            self.item_encoding, self.problem.candidate_catalogue, self.candidates
        )

    def trained(
        self,
        makes: list[Callable[[], ClickModel]],
        train: BehaviorLog,
        valid: BehaviorLog,
        freezing: list[bool],
    ) -> ClickModel:
        """Returns the model, of those that `makes` make, that is best on validation.

        First only what leads straight to the logit is trained, where there is such; then, from
        there, everything, the encoder frozen or not as `freezing` says. Every stage and every
        epoch is tried on validation.
        """
        # Few labels are read in small batches and several times: eight steps between validations.
        batch_size = min(256, max(16, len(train) // 8))
        times = -(-8 * batch_size // len(train))
        repeated = train.take(np.tile(np.arange(len(train)), times))
        data = {
            "x": self.batches(repeated, training=True, batch_size=batch_size),
            # Only the epoch is chosen by it: a reading a user, as in training, is enough.
            "validation_data": self.batches(valid, histories="shared"),
        }

        def stage(model: ClickModel, rate: float, patience: int) -> float:
            model.compile(keras.optimizers.Adam(rate, clipnorm=1.0))
            stop = keras.callbacks.EarlyStopping(
                "val_loss", patience=patience, restore_best_weights=True
            )
            fitted = model.fit(**data, epochs=self.epochs, callbacks=[stop], verbose=0)
            return min(fitted.history["val_loss"])

        found = []
        for make in makes:
            keras.utils.set_random_seed(self.seed)
            model = make()
            model.build()
            if model.wide or model.affinity:
                freeze_deep(model)
                found.append((stage(model, 1e-2, patience=8), model, model.get_weights()))
                unfreeze_deep(model)
            start = model.get_weights()
            for frozen in freezing:
                model.set_weights(start)
                if frozen:
                    freeze(model.encoder)
                found.append((stage(model, 1e-3, patience=4), model, model.get_weights()))
                unfreeze(model.encoder)
        _, best, weights = min(found, key=lambda one: one[0])
        best.set_weights(weights)
        return best

    def predict(self, model: ClickModel, part: BehaviorLog) -> np.ndarray:
        return model.predict(self.batches(part))


def truth(part: BehaviorLog) -> np.ndarray:
    return part.column("label").to_numpy()


def figures(part: BehaviorLog, probabilities: np.ndarray) -> dict[str, float]:
    report = evaluate_probabilities(truth(part), probabilities, users=part.user, confidence=None)
    return {name: float(report[name]) for name in METRICS}


def blended(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Returns the probabilities of a weighted mean of the logits."""
    logits = [np.log(p) - np.log1p(-p) for p in np.clip([first, second], 1e-6, 1 - 1e-6)]
    return 1 / (1 + np.exp(-(weight * logits[0] + (1 - weight) * logits[1])))


def blend_weight(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Returns the weight of the first with the least log loss."""

    def loss(weight: float) -> float:
        p = blended(first, second, weight)
        return float(-np.mean(np.where(labels > 0.5, np.log(p), np.log1p(-p))))

    return min(np.linspace(0, 1, 21), key=loss)


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns means and standard deviations over the seeds, by share and model."""
    rows = []
    for share, group in itertools.groupby(
        sorted(runs, key=lambda run: run["share"]), key=lambda run: run["share"]
    ):
        group = list(group)
        for name in group[0]["test"]:
            row: dict[str, Any] = {"share": share, "model": name, "seeds": len(group)}
            for metric in METRICS:
                values = [run["test"][name][metric] for run in group]
                row[metric] = statistics.mean(values)
                row[f"{metric}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
            rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'labels':>7}  {'model':42}" + "".join(f"{metric:>19}" for metric in METRICS)]
    for row in rows:
        cells = "".join(f"{row[metric]:19.4f}" for metric in METRICS)
        lines.append(f"{row['share']:7.0%}  {row['model']:42}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
