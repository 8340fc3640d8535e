"""Blends all that was trained on a data set: both objectives, all seeds, and the sequential rules.

    python benchmarks/quality/blend.py beauty_s3

Run it after `run.py` of both objectives; the weights are chosen on validation. It writes
results/<data>_all.json, and `tables.py` renews docs/results.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from run import HERE, OBJECTIVES, Experiment, described_machine, folder_name, write
from settings import DATA, FILTER_SEEN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("--models", type=Path, default=HERE.parents[1] / "build" / "quality")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    blended = blend_all(arguments.data, arguments.models, arguments.results)
    write(arguments.results / f"{arguments.data}_all.json", blended)
    for protocol in FILTER_SEEN:
        print(protocol, blended[protocol]["weights"], blended[protocol]["test"])


def blend_all(data: str, models: Path, results: Path) -> dict[str, Any]:
    """Returns the weights and what the blend reaches, by protocol."""
    from splits import split_of

    split = split_of(data)
    scorers: dict[str, dict[str, Any]] = {protocol: {} for protocol in FILTER_SEEN}
    seeds: dict[str, list[int]] = {}
    for objective in OBJECTIVES:
        path = results / f"{data}_{objective}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        setting = result["setting"]
        folder = models / folder_name(data, objective, setting)
        experiment = Experiment(data, objective, setting, split, folder)
        seeds[objective] = [int(seed) for seed in result["seeds"]]
        for seed in seeds[objective]:
            if not experiment.is_trained(seed):
                raise SystemExit(f"Seed {seed} of {objective} is not in {folder}: run it again.")
            for protocol, model in experiment.models(seed).items():
                scorers[protocol][f"{objective}, seed {seed}"] = model
    if not seeds:
        raise SystemExit(f"{results} has no result of {data}: run run.py first.")
    blended: dict[str, Any] = {"data": data, "seeds": seeds, "machine": described_machine()}
    for protocol, of_protocol in scorers.items():
        of_protocol["sequential rules"] = experiment.floors["sequential rules"]
        blended[protocol] = experiment.blend(of_protocol, protocol)
    return blended


if __name__ == "__main__":
    main()
