"""Trains a data set's setting, chooses on validation, tests once, and keeps what was found.

    python benchmarks/quality/run.py beauty_s3 [--objective next] [--seeds 0 1 2]

After every seed the result file results/<data>_<objective>.json is replaced; more seeds of the same
setting join it. A run that was killed goes on where it was. Floors, fitted on train only, and
blends with the sequential rules stand beside the model. Then `tables.py` renews docs/results.md.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import machine, write
from settings import DATA, FILTER_SEEN, SETTINGS

HERE = Path(__file__).parent
OBJECTIVES = ("next", "masked")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("--objective", choices=OBJECTIVES, default="next")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="instead of the setting's")
    parser.add_argument("--models", type=Path, default=HERE.parents[1] / "build" / "quality")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--fresh", action="store_true", help="forget what was trained before")
    arguments = parser.parse_args()
    run(**vars(arguments))


def run(
    data: str,
    objective: str,
    *,
    seeds: list[int],
    epochs: int | None,
    models: Path,
    results: Path,
    fresh: bool,
) -> None:
    from splits import split_of
    from tables import show

    setting = setting_of(data, objective, epochs)
    folder = models / folder_name(data, objective, setting)
    path = results / f"{data}_{objective}.json"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        path.unlink(missing_ok=True)
    experiment = Experiment(data, objective, setting, split_of(data), folder)
    result = read(path, experiment)
    for seed in seeds:
        if str(seed) in result["seeds"]:
            print(f"Seed {seed} is in {path.name} already.")
            continue
        measured = result["seeds"] | {str(seed): experiment.measure_seed(seed)}
        result["seeds"] = dict(sorted(measured.items(), key=lambda one: int(one[0])))
        result["summary"] = summary(result["seeds"])
        write(path, result)
    kept = [int(seed) for seed in result["seeds"] if experiment.is_trained(int(seed))]
    if len(kept) > 1 and kept != result.get("all_seeds", {}).get("seeds"):
        result["all_seeds"] = experiment.measure_together(kept)
        write(path, result)
    print(show(data, [result]))


def setting_of(data: str, objective: str, epochs: int | None = None) -> dict[str, Any]:
    """Returns a setting with the protocols and floors that go with it."""
    setting = SETTINGS[data, objective]
    fit = setting["fit"] if epochs is None else setting["fit"] | {"epochs": epochs}
    return {"recommender": setting["recommender"], "fit": fit, **DATA[data]}


def folder_name(data: str, objective: str, setting: dict[str, Any]) -> str:
    """Returns a name of its own for the models of every setting."""
    key = hashlib.sha256(json.dumps(as_json(setting), sort_keys=True).encode()).hexdigest()
    return f"{data}_{objective}_{key[:8]}"


class Experiment:
    """A setting on a data set, whose seeds are trained and measured one by one."""

    def __init__(self, data: str, objective: str, setting: dict, split: Any, folder: Path):
        from tfrec_llm import baselines
        from tfrec_llm.data import Vocabulary

        self.data = data
        self.objective = objective
        self.setting = setting
        self.split = split
        self.folder = folder
        min_count = setting["recommender"].get("min_count", 1)
        vocabulary = Vocabulary.fit(split.train.item, min_count=min_count)
        floors: dict[str, baselines.Baseline] = {
            "popularity": baselines.Popularity(),
            "Markov chain": baselines.MarkovChain(),
            "sequential rules": baselines.SequentialRules(**setting["rules"]),
        }
        self.floors = {
            name: floor.fit(split.train, vocabulary=vocabulary) for name, floor in floors.items()
        }

    def describe(self) -> dict[str, Any]:
        """Returns the head of a result file, with the floors and no seed yet."""
        from tfrec_llm import Recommender

        recommender = Recommender(self.objective, **self.setting["recommender"])
        train, valid, test = self.split.train, self.split.valid, self.split.test
        return {
            "data": self.data,
            "objective": self.objective,
            "setting": as_json(self.setting),
            "recommender": recommender.get_config(),
            "counts": {
                "train_behaviors": len(train),
                "train_users": train.num_users,
                "train_items": train.num_items,
                "valid_users": valid.num_users,
                "test_users": test.num_users,
            },
            "floors": {
                name: {
                    protocol: {"test": self.figures(floor, self.split.test, protocol)}
                    for protocol in FILTER_SEEN
                }
                for name, floor in self.floors.items()
            },
            "seeds": {},
        }

    def is_trained(self, seed: int) -> bool:
        """Returns whether the seed's models are kept, which a blend of seeds needs."""
        return (self.folder / f"seed{seed}_{self.setting['protocols'][0]}").exists()

    def models(self, seed: int) -> dict[str, Any]:
        """Returns the seed's recommender by protocol, trained now where it was not before."""
        from training import train

        chosen = train(
            self.split,
            self.objective,
            self.setting,
            protocols=self.setting["protocols"],
            seed=seed,
            folder=self.folder,
        )
        first = self.setting["protocols"][0]
        return {protocol: chosen.get(protocol, chosen[first]) for protocol in FILTER_SEEN}

    def measure_seed(self, seed: int) -> dict[str, Any]:
        """Trains a seed and returns what it reaches, alone and with the sequential rules."""
        from training import best_epoch

        models = self.models(seed)
        stopping = models[self.setting["protocols"][0]]
        until_best = stopping.curve[: best_epoch(stopping) + 1]
        begin = time.perf_counter()
        self.figures(stopping, self.split.valid, self.setting["protocols"][0])
        measured: dict[str, Any] = {
            "epochs": len(stopping.curve),
            "seconds": {
                "training": sum(row["seconds"] for row in stopping.curve),
                "training_to_best_epoch": sum(row["seconds"] for row in until_best),
                "one_evaluation": time.perf_counter() - begin,
            },
            "machine": described_machine(),
        }
        for protocol, model in models.items():
            rules = {"sequential rules": self.floors["sequential rules"]}
            measured[protocol] = {
                "model": {
                    "best_epoch": best_epoch(model),
                    "validation": self.figures(model, self.split.valid, protocol),
                    "test": self.figures(model, self.split.test, protocol),
                },
                "with rules": self.blend({"model": model, **rules}, protocol),
            }
            if not FILTER_SEEN[protocol]:  # else there are no repeats to weigh
                measured[protocol]["repeats weighed"] = self.blend({"model": model}, protocol)
        return measured

    def measure_together(self, seeds: list[int]) -> dict[str, Any]:
        """Returns what the seeds reach together, without and with the sequential rules."""
        models = [self.models(seed) for seed in seeds]
        measured: dict[str, Any] = {"seeds": seeds}
        for protocol in FILTER_SEEN:
            scorers = {f"seed {seed}": by[protocol] for seed, by in zip(seeds, models, strict=True)}
            rules = {"sequential rules": self.floors["sequential rules"]}
            measured[protocol] = {
                "model": self.blend(scorers, protocol),
                "with rules": self.blend(scorers | rules, protocol),
            }
        return measured

    def blend(self, scorers: dict[str, Any], protocol: str) -> dict[str, Any]:
        """Blends with weights chosen on validation; returns them and what the blend reaches."""
        from training import METRIC

        from tfrec_llm.evaluation import Blend

        blend = Blend(scorers)
        blend.fit(self.split.valid, metric=METRIC, filter_seen=FILTER_SEEN[protocol])
        return {
            "weights": dict(blend.weights),
            "repeat_weight": blend.repeat_weight,
            "validation": self.figures(blend, self.split.valid, protocol),
            "test": self.figures(blend, self.split.test, protocol),
        }

    def figures(self, scorer: Any, log: Any, protocol: str) -> dict[str, float]:
        """Returns HR, NDCG and recall at 5 and 10."""
        report = scorer.evaluate(
            log,
            k=(5, 10),
            metrics=("hr", "ndcg", "recall"),
            filter_seen=FILTER_SEEN[protocol],
            confidence=None,
        )
        return dict(report)


def summary(seeds: dict[str, dict]) -> dict[str, Any]:
    """Returns mean and standard deviation over the seeds of every test figure."""
    summed: dict[str, Any] = {}
    for protocol in FILTER_SEEN:
        summed[protocol] = {}
        for name in next(iter(seeds.values()))[protocol]:
            tests = [seed[protocol][name]["test"] for seed in seeds.values()]
            summed[protocol][name] = {
                metric: {
                    "mean": statistics.mean(test[metric] for test in tests),
                    "standard_deviation": (
                        statistics.stdev(test[metric] for test in tests) if len(tests) > 1 else None
                    ),
                }
                for metric in tests[0]
            }
    return summed


def read(path: Path, experiment: Experiment) -> dict[str, Any]:
    """Returns the result so far, a new one where there is none of this setting."""
    if path.exists():
        result = json.loads(path.read_text())
        if result["setting"] == as_json(experiment.setting):
            return result
        print(f"{path.name} is of another setting: it starts anew.")
    return experiment.describe()


def as_json(setting: dict[str, Any]) -> dict[str, Any]:
    """Returns a setting as JSON holds it, with losses as their configurations."""
    import keras

    return json.loads(json.dumps(setting, default=keras.saving.serialize_keras_object))


def described_machine() -> dict[str, Any]:
    import keras

    backend = keras.backend.backend()
    return {**machine("tfrec-llm", "keras", backend, "numpy"), "backend": backend}


if __name__ == "__main__":
    main()
