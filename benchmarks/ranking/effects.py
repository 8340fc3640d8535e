"""What single methods add to the pre-trained ranking model.

    python benchmarks/ranking/effects.py completejourney [--seeds 0 1 2] [--methods ...]

Each method is measured against the same model without it: same pre-trained encoder, same data,
same seeds, best epoch by validation. Adds to results/effects_DATA.json after every training and
leaves out what is there already, of the same settings; --fresh begins anew.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
import keras
import numpy as np
import pyarrow as pa
from problems import PROBLEMS, Problem, problem
from reporting import machine, write
from run import EMB_DIM, METRICS, Bench, figures, kept_runs, truth

from tfrec_llm.data import BehaviorLog, ConsistencyBatches, mask
from tfrec_llm.layers import ItemEmbedding, ItemEncoder
from tfrec_llm.models import ClickModel, ConversionModel
from tfrec_llm.training import (
    AdversarialTraining,
    ConsistencyTraining,
    add_lora,
    freeze,
    pseudo_labels,
)

HERE = Path(__file__).parent
FULL, FEW = "the full model", "a tenth of the labels"
CONVERSIONS = "conversions with purchases (ESMM)"
NUMBERS, AVERAGED = "candidates by number alone", "features without the item Transformer"
OF_CANDIDATES = (NUMBERS, AVERAGED)  # for candidates that are no items of the histories
CLICKS = {"click": "bought", "conversion": "label"}
# Each method by what it is measured against.
METHODS = {
    FULL: None,
    "without interest": FULL,
    "mean of the history as interest": FULL,
    NUMBERS: FULL,
    AVERAGED: FULL,
    "adversarial": FULL,
    CONVERSIONS: FULL,
    "frozen encoder": FULL,
    "LoRA": FULL,
    FEW: None,
    "a tenth, and consistency": FEW,
    "a tenth, and pseudo-labels": FEW,
}
SETTINGS = {
    "learning_rate": 1e-3,
    "patience": 4,
    "adversarial": {"epsilon": "a tenth of the mean row of the encoder's table", "weight": 0.5},
    "lora_rank": 8,
    "few_labels": 0.1,
    "few_batch_size": 64,
    "consistency": {"weight": 1.0, "ramp_steps": 50, "masked": 0.3},
    "pseudo_labels": {"positive": "half the positive share", "negative": "the lower half"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=20, help="most epochs of a training")
    parser.add_argument("--pre-training", type=int, help="epochs, instead of the problem's")
    parser.add_argument(
        "--max-length", type=int, help="newest behaviours, instead of the problem's"
    )
    parser.add_argument("--models", type=Path, help="folder that keeps the pre-trained encoder")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    arguments = parser.parse_args()
    asked = problem(arguments.data)
    if arguments.pre_training is not None:
        asked.pre_training = arguments.pre_training
    asked.max_length = arguments.max_length or asked.max_length
    path = arguments.results / f"effects_{arguments.data}.json"
    result = run(
        asked,
        arguments.data,
        path,
        methods=arguments.methods,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        models=arguments.models,
        fresh=arguments.fresh,
    )
    print(table(result["summary"]))


def run(
    asked: Problem,
    data: str,
    path: Path,
    *,
    methods: list[str],
    seeds: list[int],
    epochs: int,
    models: Path | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Measures methods and writes the file after each of them."""
    # One pre-training for all, of seed 0: what is compared differs in fine-tuning alone.
    bench = EffectsBench(asked, 0, epochs, models and models / f"{data}_0.tfrec")
    result: dict[str, Any] = {
        "data": data,
        "machine": machine("tfrec-llm", "keras", "tensorflow"),
        "settings": SETTINGS | {"emb_dim": EMB_DIM, "epochs": epochs} | asked.settings,
        "counts": {
            name: {"impressions": len(part), "positive": int(truth(part).sum())}
            for name, part in vars(asked.split).items()
        },
    }
    runs = [] if fresh else kept_runs(path, result["settings"])
    done = {(one["seed"], one["method"]) for one in runs}
    for seed in seeds:
        for method in methods:
            if (seed, method) in done or not bench.makes_sense_of(method):
                continue
            runs.append({"seed": seed, "method": method, **bench.effect(method, seed)})
            write(path, result | {"summary": summary(runs), "runs": runs})
            print(f"seed {seed}, {method}: {runs[-1]['test']}", flush=True)
    return json.loads(path.read_text())


class EffectsBench(Bench):
    """Trains the pre-trained model with and without a method."""

    def makes_sense_of(self, method: str) -> bool:
        """Returns whether the data have what a method needs."""
        if method == CONVERSIONS:
            return self.problem.split.train.has("bought")
        return method not in OF_CANDIDATES or self.problem.contents is not None

    def effect(self, method: str, seed: int) -> dict[str, Any]:
        """Returns what a method reaches, and what its training took."""
        self.seed = seed
        readable, split = self.problem.readable, self.problem.split
        self.base_rate = float(truth(split.train).mean())
        if METHODS[method] == FEW or method == FEW:
            model, history = self.with_few_labels(method)
        else:
            model, history = self.with_all_labels(method)
        found = model.predict(self.batches(readable.test, labels=None))
        found = found["conversion"] if isinstance(found, dict) else found
        return {
            "epochs": len(history["loss"]),
            "trained_weights": {
                "model": _size(model.trainable_variables),
                "encoder": _size(model.encoder.trainable_variables),
            },
            "test": figures(split.test, found),
        }

    def with_all_labels(self, method: str) -> tuple[Any, Any]:
        model = self.model(method)
        train, valid = self.problem.readable.train, self.problem.readable.valid
        if isinstance(model, ConversionModel):
            # Chosen by the label that the other models are chosen by.
            return self.fitted(
                model,
                self.batches(train, training=True, labels=CLICKS),
                self.batches(valid, labels=CLICKS),
                monitor="val_conversion_loss",
            )
        wrapper = None
        if method == "adversarial":
            rows = np.asarray(model.encoder.item_embedding.table)
            epsilon = 0.1 * float(np.linalg.norm(rows, axis=1).mean())
            wrapper = AdversarialTraining(model, epsilon=epsilon, weight=0.5)
        return self.fitted(
            model, self.batches(train, training=True), self.batches(valid), wrapper=wrapper
        )

    def model(self, method: str) -> Any:
        """Returns the full model, or what a method makes of it."""
        keras.utils.set_random_seed(self.seed)
        parts = self.parts(pre_trained=True)
        lookup = self.item_lookup()
        size, make = lookup.vocab_size, ClickModel
        if method == "without interest":
            parts["interest"] = None
        elif method == "mean of the history as interest":
            parts["interest"] = "mean"
        elif method == NUMBERS:
            parts["candidate_embedding"] = ItemEmbedding(size, EMB_DIM)
        elif method == AVERAGED:
            linear = ItemEncoder(lookup.specs, EMB_DIM, num_layers=0)
            parts["candidate_embedding"] = ItemEmbedding(
                size, EMB_DIM, features=lookup, feature_encoder=linear, id_dropout=0.5
            )
        elif method == CONVERSIONS:
            make = ConversionModel
        model = make(**parts)
        model.build()
        if method == "frozen encoder":
            freeze(model.encoder)
        elif method == "LoRA":
            add_lora(model.encoder, rank=8)
        return model

    def with_few_labels(self, method: str) -> tuple[Any, Any]:
        train = self.problem.readable.train
        valid = self.batches(self.problem.readable.valid)
        order = np.random.default_rng(self.seed).permutation(len(train))
        count = max(20, round(SETTINGS["few_labels"] * len(train)))
        few, rest = (train.take(np.sort(rows)) for rows in (order[:count], order[count:]))
        batches: Callable[..., Any] = functools.partial(
            self.batches, training=True, batch_size=SETTINGS["few_batch_size"]
        )
        model = self.model(FULL)
        if method == "a tenth, and consistency":
            hidden = functools.partial(mask, rate=0.3)
            both = ConsistencyBatches(
                batches(few), batches(rest, labels=None), augment=hidden, seed=self.seed
            )
            wrapper = ConsistencyTraining(model, weight=1.0, ramp_steps=50)
            return self.fitted(model, both, valid, wrapper=wrapper)
        trained = self.fitted(model, batches(few), valid)
        if method == FEW:
            return trained
        guessed = labelled_by(trained[0].predict(self.batches(rest)), few, rest)
        return self.fitted(self.model(FULL), batches(guessed), valid)

    def fitted(
        self, model: Any, train: Any, valid: Any, *, wrapper: Any = None, monitor: str = "val_loss"
    ) -> tuple[Any, Any]:
        """Returns the model at its best epoch, and the history."""
        trained = model if wrapper is None else wrapper
        trained.compile(keras.optimizers.Adam(1e-3, clipnorm=1.0))
        stop = keras.callbacks.EarlyStopping(
            monitor, mode="min", patience=SETTINGS["patience"], restore_best_weights=True
        )
        history = trained.fit(
            train, validation_data=valid, epochs=self.epochs, callbacks=[stop], verbose=0
        ).history
        return model, history


def labelled_by(probabilities: np.ndarray, few: BehaviorLog, rest: BehaviorLog) -> BehaviorLog:
    """Returns the labelled rows, and those of the rest whose outcome a model is sure of."""
    share = float(truth(few).mean())
    lower, upper = np.quantile(probabilities, [0.5, 1 - share / 2])
    found = pseudo_labels(probabilities, positive=float(upper), negative=float(lower))
    tables = []
    for part, labels, weights in (
        (few, truth(few), np.ones(len(few), np.float32)),
        (rest, found.labels, found.weights),
    ):
        table = part.table.select(["user", "item", "time", *part.context])
        table = table.append_column("label", pa.array(labels.astype(np.float32)))
        tables.append(
            table.append_column("weight", pa.array(weights)).filter(pa.array(weights > 0))
        )
    return BehaviorLog(pa.concat_tables(tables), catalogue=few.catalogue, history=few.history)


def _size(variables: Any) -> int:
    return int(sum(np.prod(variable.shape) for variable in variables))


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns means and standard deviations over the seeds, and of differences, by method."""
    by_method = {
        name: {one["seed"]: one for one in runs if one["method"] == name} for name in METHODS
    }
    rows = []
    for name, against in METHODS.items():
        found = by_method[name]
        if not found:
            continue
        row: dict[str, Any] = {
            "method": name,
            "against": against,
            "seeds": len(found),
            "epochs": statistics.mean(one["epochs"] for one in found.values()),
            "trained_weights": next(iter(found.values()))["trained_weights"],
        }
        for metric in METRICS:
            values = {seed: one["test"][metric] for seed, one in found.items()}
            row[metric] = _spread(list(values.values()))
            if against is not None:
                # The same seed shares data and start, so differences vary less than values.
                row[metric]["difference"] = _spread(
                    [
                        value - by_method[against][seed]["test"][metric]
                        for seed, value in values.items()
                        if seed in by_method[against]
                    ]
                )
        rows.append(row)
    return rows


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.mean(values) if values else None,
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the means, to print."""
    lines = [f"{'':40}{'seeds':>6}" + "".join(f"{metric:>19}" for metric in METRICS)]
    for row in rows:
        cells = "".join(f"{row[metric]['mean']:19.4f}" for metric in METRICS)
        lines.append(f"{row['method']:40}{row['seeds']:6}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
