"""Measures whether further pre-training objectives help to predict the next behaviour.

    python benchmarks/quality/objectives.py eshop [--seeds 0 1 2] [--objectives contrastive]

One small model is trained by the next behaviour alone, and with another objective, either first
(pre-trained by it, then trained as the other) or beside it (both at once, the other loss weighted).
The epoch is chosen on validation, test is looked at once. After every run the result file
results/objectives_<data>.json is replaced; runs that are in it are not repeated. At the end the
table of docs/pretraining.md is renewed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, spread, write

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "pretraining.md"

# Users are those who came first; a loss beside that of the next behaviour has the weight named.
DATA: dict[str, dict[str, Any]] = {
    "eshop": {
        "users": 2000,
        "protocol": "U",
        "max_length": 64,
        "dropout": 0.3,
        "attributes": ["category", "colour", "price_level", "page", "location"],
        "objectives": {"contrastive": 0.1, "attributes": 0.1},
    },
    "beauty_s3": {
        "users": 2000,
        "protocol": "F",
        "max_length": 50,
        "dropout": 0.5,
        "attributes": ["attributes"],
        "objectives": {"contrastive": 0.1, "attributes": 0.1},
    },
    "online_retail": {
        "users": 500,
        "protocol": "U",
        "max_length": 100,
        "dropout": 0.3,
        "attributes": ["title"],
        "sessions": "invoice",
        "objectives": {"contrastive": 0.1, "attributes": 0.1, "session": 0.1},
    },
    # Small enough to try the whole path; its figures say nothing.
    "simulated": {
        "users": 100,
        "protocol": "F",
        "max_length": 32,
        "dropout": 0.2,
        "attributes": ["category"],
        "gap": "30s",
        "objectives": {"contrastive": 0.1, "attributes": 0.1, "session": 0.1},
    },
}
ENCODER = {"emb_dim": 64, "num_layers": 2, "num_heads": 2}
TRAINING = {
    "learning_rate": 1e-3,
    "behaviors_a_batch": 1024,
    "first_epochs": 15,
    "epochs": 100,
    "patience": 6,
}
METRICS = ("hr@10", "ndcg@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objectives", nargs="+", help="some of the setting's; all by default")
    parser.add_argument("--users", type=int, help="instead of the setting's")
    parser.add_argument("--epochs", type=int, help="instead of the setting's, of each training")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    training = dict(TRAINING)
    if arguments.epochs:
        training |= {"epochs": arguments.epochs, "first_epochs": arguments.epochs}
    users = {"users": arguments.users} if arguments.users else {}
    setting = DATA[arguments.data] | users | {"encoder": ENCODER, "training": training}
    path = arguments.results / f"objectives_{arguments.data}.json"
    objectives = arguments.objectives or list(setting["objectives"])
    result = measure(arguments.data, setting, objectives, arguments.seeds, path)
    print(table([result]))
    if arguments.results == RESULTS:
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


def measure(
    data: str, setting: dict[str, Any], objectives: list[str], seeds: list[int], path: Path
) -> dict[str, Any]:
    """Trains what is not in the result file yet, and returns the result."""
    result: dict[str, Any] = {"data": data, "setting": setting, "runs": {}}
    if path.exists():
        before = json.loads(path.read_text())
        if before["setting"] == setting:
            result = before
        else:
            print(f"{path.name} is of another setting: it starts anew.")
    study = Study(data, setting)
    result["counts"] = study.counts
    variants = ["next alone"]
    variants += [f"{name} {place}" for place in ("first", "beside") for name in objectives]
    for seed in seeds:
        for variant in variants:
            runs = result["runs"].setdefault(variant, {})
            if str(seed) in runs:
                continue
            runs[str(seed)] = study.run(variant, seed)
            print(variant, seed, runs[str(seed)], flush=True)
            result["machine"] = machine("tfrec-llm", "keras", "tensorflow", "numpy")
            write(path, result)
    return result


class Study:
    """A data set with what every objective is trained on."""

    def __init__(self, data: str, setting: dict[str, Any]):
        from splits import split_of

        from tfrec_llm.data import UserSequences, Vocabulary, item_attributes, split_sessions

        self.setting = setting
        split = split_of(data)
        users = split.train.user_codes()[1][: setting["users"]]
        self.train, self.valid, self.test = (
            of_users(part, users) for part in (split.train, split.valid, split.test)
        )
        self.vocabulary = Vocabulary.fit(self.train.item)
        self.sequences = UserSequences.from_log(self.train, self.vocabulary)
        catalogue = self.train.catalogue
        self.attributes = item_attributes(
            catalogue, self.vocabulary, columns=setting["attributes"]
        ).indexes
        if "session" in setting["objectives"]:
            self.sessions = split_sessions(
                self.train,
                self.vocabulary,
                column=setting.get("sessions"),
                gap=setting.get("gap"),
            )
        self.filter_seen = setting["protocol"] == "F"
        self.counts = {
            "users": self.train.num_users,
            "behaviors": len(self.train),
            "items": len(self.vocabulary),
            "attributes": int(self.attributes.max()),
            "test_users": self.test.num_users,
        }

    def run(self, variant: str, seed: int) -> dict[str, Any]:
        """Trains a variant and returns what it reaches."""
        import keras

        from tfrec_llm import models
        from tfrec_llm.data import JointBatches
        from tfrec_llm.losses import CatalogCrossEntropy

        keras.utils.set_random_seed(seed)
        begin = time.perf_counter()
        # Causal in all objectives, so that they differ in nothing else.
        encoder = models.BehaviorEncoder(
            self.vocabulary.size,
            **self.setting["encoder"],
            max_length=self.setting["max_length"],
            dropout=self.setting["dropout"],
            causal=True,
        )
        model = models.NextBehaviorModel(encoder)
        loss = CatalogCrossEntropy(num_chunks=1)
        objective, _, place = variant.partition(" ")
        if place == "first":
            other = self.model(objective, encoder)
            other.compile(self.optimizer())
            other.fit(
                self.batches(objective, seed + 100),
                epochs=self.setting["training"]["first_epochs"],
                verbose=2,
            )
        batches, trained = self.batches("next", seed), model
        if place == "beside":
            trained = models.JointModel({"next": model, objective: self.model(objective, encoder)})
            batches = JointBatches(
                {"next": batches, objective: self.batches(objective, seed + 100)}
            )
            trained.compile(
                self.optimizer(),
                loss={"next": loss},
                loss_weights={objective: self.setting["objectives"][objective]},
            )
        else:
            trained.compile(self.optimizer(), loss=loss)
        epoch, validation, test = self.fit(trained, model, batches)
        return {
            "test": test,
            "validation": validation,
            "best_epoch": epoch,
            "seconds": round(time.perf_counter() - begin, 1),
        }

    def optimizer(self) -> Any:
        import keras

        return keras.optimizers.Adam(self.setting["training"]["learning_rate"])

    def model(self, objective: str, encoder: Any) -> Any:
        """Returns the model of an objective."""
        from tfrec_llm import models

        if objective == "attributes":
            return models.AttributeModel(encoder, self.attributes)
        kinds = {"contrastive": models.ContrastiveModel, "session": models.NextSessionModel}
        return kinds[objective](encoder)

    def batches(self, objective: str, seed: int) -> Any:
        """Returns the batches of an objective."""
        from tfrec_llm.data import contrastive_batches, next_batches, next_session_batches

        length = self.setting["max_length"]
        make: dict[str, Callable[..., Any]] = {
            "next": next_batches,
            "attributes": next_batches,
            "contrastive": contrastive_batches,
            "session": next_session_batches,
        }
        data = self.sequences
        if objective == "session":
            data, length = self.sessions, length // 2
        batches = make[objective](data, max_length=length, seed=seed)
        rows = max(1, self.setting["training"]["behaviors_a_batch"] // batches.row_length)
        return make[objective](data, max_length=length, seed=seed, batch_size=rows)

    def fit(self, trained: Any, model: Any, batches: Any) -> tuple[int, Any, Any]:
        """Trains to the best epoch; returns it and the figures of validation and test."""
        import keras

        from tfrec_llm.evaluation import ModelScorer, RankingEvaluation

        scorer = ModelScorer(model, self.vocabulary)
        training = self.setting["training"]
        stopping = keras.callbacks.EarlyStopping(
            "val_ndcg@10", mode="max", patience=training["patience"], restore_best_weights=True
        )
        trained.fit(
            batches,
            epochs=training["epochs"],
            callbacks=[
                RankingEvaluation(scorer, self.valid, filter_seen=self.filter_seen),
                stopping,
            ],
            verbose=2,
        )
        figures = [
            {
                name: scorer.evaluate(
                    part,
                    k=10,
                    metrics=("hr", "ndcg"),
                    filter_seen=self.filter_seen,
                    confidence=None,
                )[name]
                for name in METRICS
            }
            for part in (self.valid, self.test)
        ]
        return int(stopping.best_epoch), *figures


def of_users(log: Any, users: Any) -> Any:
    """Returns what some users did, in a log and in its history."""
    import pyarrow.compute as pc

    def rows(part: Any) -> Any:
        return pc.is_in(part.user, value_set=users).to_numpy()

    history = None if log.history is None else log.history.take(rows(log.history))
    return log.take(rows(log), history=history)


def renewed(page: str, results: Path) -> str:
    """Returns the page with the table of the result files."""
    found = [
        json.loads(path.read_text())
        for data in DATA
        if (path := results / f"objectives_{data}.json").exists()
    ]
    return between_marks(page, f"\n{table(found)}\n\n" if found else "")


def table(results: list[dict[str, Any]]) -> str:
    """Returns mean and deviation of the seeds, a row a variant."""
    rows = [["data", "objectives", "HR@10", "NDCG@10", "against next alone", "seeds"]]
    for result in results:
        alone = result["runs"]["next alone"]
        for variant, runs in result["runs"].items():
            both = sorted(set(runs) & set(alone))
            gains = [
                runs[seed]["test"]["ndcg@10"] / alone[seed]["test"]["ndcg@10"] - 1 for seed in both
            ]
            signs = f"{sum(gain > 0 for gain in gains)} of {len(gains)} better"
            gain = f"{statistics.mean(gains):+.1%} ({signs})"
            rows.append(
                [
                    result["data"],
                    variant,
                    *(spread_of([run["test"][name] for run in runs.values()]) for name in METRICS),
                    "" if variant == "next alone" else gain,
                    str(len(runs)),
                ]
            )
    return markdown(rows)


def spread_of(values: list[float]) -> str:
    """Returns a mean and, of several values, their deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return spread(statistics.mean(values), deviation)


if __name__ == "__main__":
    main()
