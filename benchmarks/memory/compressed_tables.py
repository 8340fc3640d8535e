"""What compressed item tables cost in quality, and save in memory and time.

    python benchmarks/memory/compressed_tables.py [--data ml-1m] [--epochs 10]

A model is trained on real behaviours; its item table is then compressed in every way and each is
evaluated on the same held-out behaviours, nothing removed from the ranking. Size and scoring time
are measured on a catalogue of a million items with random vectors: a thousand users at once, and
one user alone. Every measurement is a process of its own. The data is MovieLens-1M where TFREC_DATA
says where it is, else the online retail log of the package. Prints a table and writes
results/compressed_tables.json beside this script.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from large_catalogue import PACKAGES, made, peak
from reporting import in_new_process, machine, write

TABLES: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"kind": "float16"},
    "int8": {"kind": "int8"},
    "product, 16 codes": {"kind": "product", "num_codes": 16},
    "product, 8 codes": {"kind": "product", "num_codes": 8},
    "product, 4 codes": {"kind": "product", "num_codes": 4},
}
RESULTS = Path(__file__).parent / "results" / "compressed_tables.json"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=default_data())
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        name, *options = arguments.measure
        print(json.dumps(MEASUREMENTS[name](arguments, *options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = folder
        trained = measurement(arguments, "train")
        qualities = {name: measurement(arguments, "quality", name) for name in TABLES}
        times: dict[str, list[dict]] = {name: [] for name in TABLES}
        for _ in range(arguments.rounds):
            for name in TABLES:
                times[name].append(measurement(arguments, "speed", name))
    tables = {
        name: qualities[name]
        | {key: statistics.median(run[key] for run in times[name]) for key in times[name][0]}
        for name in TABLES
    }
    results = {
        "training": trained,
        "scored": {"items": arguments.items, "users": arguments.users},
        "tables": tables,
        "machine": machine(*PACKAGES),
    }
    write(arguments.results, results)
    show(results)


def default_data() -> str:
    folder = os.environ.get("TFREC_DATA")
    return "ml-1m" if folder and (Path(folder) / "ml-1m").exists() else "online_retail"


def measurement(arguments: argparse.Namespace, name: str, *options: Any) -> dict[str, Any]:
    given = [
        (f"--{each}", getattr(arguments, each)) for each in ("data", "epochs", "items", "users")
    ]
    told = ["--folder", arguments.folder, *(part for pair in given for part in pair)]
    return in_new_process(__file__, *told, "--measure", name, *options)


def held_out(arguments: argparse.Namespace) -> Any:
    from tfrec_llm.data import DropNulls, clean, leave_last_out, load

    return leave_last_out(clean(load(arguments.data), [DropNulls()]).log)


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    import tfrec_llm as tr

    split = held_out(arguments)
    recommender = tr.Recommender(emb_dim=64, num_layers=2, num_heads=2, seed=0)
    start = time.perf_counter()
    recommender.fit(split.train, validation=split.valid, epochs=arguments.epochs, verbose=0)
    seconds = time.perf_counter() - start
    recommender.save(f"{arguments.folder}/trained")
    return {
        "data": arguments.data,
        "items": len(recommender.vocabulary),
        "epochs": len(recommender.curve),
        "seconds": seconds,
    }


def quality(arguments: argparse.Namespace, table: str) -> dict[str, Any]:
    import tfrec_llm as tr

    scorer: Any = tr.Recommender.load(f"{arguments.folder}/trained")
    if TABLES[table]:
        scorer = tr.evaluation.CompressedScorer.of(scorer, **TABLES[table])
    report = scorer.evaluate(
        held_out(arguments).test, k=10, filter_seen=False, metrics=("hr", "ndcg"), confidence=None
    )
    return dict(report.items())


def speed(arguments: argparse.Namespace, table: str) -> dict[str, Any]:
    import numpy as np

    from tfrec_llm.data import Vocabulary
    from tfrec_llm.evaluation import CompressedScorer, ModelScorer

    model, sequences = made(arguments.items, "lazy_adam")
    vocabulary = Vocabulary(np.arange(arguments.items))
    histories = sequences.take(np.arange(arguments.users))
    scorer: Any = ModelScorer(model, vocabulary, histories=histories)
    bytes_per_item = 4.0 * model.encoder.emb_dim
    start = time.perf_counter()
    if TABLES[table]:
        scorer = CompressedScorer.of(scorer, **TABLES[table])
        bytes_per_item = scorer.bytes_per_item
    compressing = time.perf_counter() - start
    one = histories.take([0])
    seconds = {}
    for name, asked, repeats in (("one", one, 11), ("all", histories, 2)):
        runs = []
        for _ in range(repeats):
            start = time.perf_counter()
            scorer.recommend(histories=asked, k=10)
            runs.append(time.perf_counter() - start)
        seconds[name] = statistics.median(runs[1:])
    return {
        "bytes_per_item": bytes_per_item,
        "table_megabytes": bytes_per_item * arguments.items / 1e6,
        "compressing_seconds": compressing,
        "milliseconds_one_user": 1e3 * seconds["one"],
        "seconds_all_users": seconds["all"],
        **peak(),
    }


def show(results: dict[str, Any]) -> None:
    trained, scored = results["training"], results["scored"]
    print(
        f"{trained['data']}, {trained['items']:,} items, {trained['epochs']} epochs; "
        f"scored: {scored['users']:,} users, {scored['items']:,} items"
    )
    columns = ("HR@10", "NDCG@10", "bytes an item", "MB", "one user, ms", "all users, s")
    print(f"{'':20}" + "".join(f"{column:>15}" for column in columns))
    for name, one in results["tables"].items():
        cells = (
            f"{one['hr@10']:.4f}",
            f"{one['ndcg@10']:.4f}",
            f"{one['bytes_per_item']:.0f}",
            f"{one['table_megabytes']:.0f}",
            f"{one['milliseconds_one_user']:.0f}",
            f"{one['seconds_all_users']:.1f}",
        )
        print(f"{name:20}" + "".join(f"{cell:>15}" for cell in cells))


MEASUREMENTS = {"train": train, "quality": quality, "speed": speed}

if __name__ == "__main__":
    main()
