"""This library beside RecTools and RePlay: same data, same architecture, loss and batch of users.

    python benchmarks/speed/peers.py --data beauty_s3 [--rounds 2]
    python benchmarks/speed/peers.py --data beauty_s3 --to-best [--peer esasrec]

The first measures seconds an epoch, memory and recommendations; the second trains the peer until
its validation NDCG@10 no longer rises, then this library until it passes that value. Every
measurement is a process of its own on the same two cores, the libraries take turns, and medians
are reported. README.md beside this script says what was chosen and why. Prints tables and writes
results/peers_DATA.json and results/to_best_DATA.json after every measurement.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).with_name("peers")))
sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "quality"))
from environments import environment, versions
from reporting import machine, write
from settings import SETTINGS
from speed_tables import epochs, median_seconds

from tfrec_llm.data import BehaviorLog, ShopSimulator, Split, leave_last_out, load

HERE = Path(__file__).parent
CORES = 2
SIZES = {
    "ml-1m": {"max_length": 200, "dropout": 0.2},
    "beauty_s3": {"max_length": 50, "dropout": 0.5},
    "simulated": {"max_length": 50, "dropout": 0.2},
}
JOB = {"batch_size": 128, "negatives": 256, "learning_rate": 1e-3, "threads": CORES, "seed": 0}
# Worker, environment and what its job holds beside the common settings.
CONTESTANTS = {
    "ours": ("run_ours.py", None, {}),
    # RecTools' SASRecModel has a feed-forward as wide as its vectors.
    "ours_narrow": ("run_ours.py", None, {"hid_dim": 64}),
    "rectools": ("run_rectools.py", "rectools", {"model": "sasrec", "loader_processes": 0}),
    "rectools_flat": ("run_rectools.py", "rectools", {"model": "flat", "loader_processes": 0}),
    "replay": ("run_replay.py", "replay", {"buckets": 32}),
}
# What a library is given beyond its defaults: its environment, and what its job holds.
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
WAYS = {
    "plain": ({}, {"precision": "32-true"}),
    "kept memory": (KEPT_MEMORY, {"precision": "32-true"}),
    "kept memory, bfloat16": (KEPT_MEMORY, {"precision": "bf16-mixed"}),
}
OUR_WAYS = {
    "plain": ({}, {}),
    "one thread an operation": ({"TF_NUM_INTRAOP_THREADS": "1"}, {}),
    "XLA, float32, 8 steps a call": (
        {},
        {"jit_compile": True, "precision": "float32", "steps_per_execution": 8},
    ),
}
# RePlay's LengthBucketedQueryEncoder puts bfloat16 states into a float32 tensor, which PyTorch
# refuses.
FLOAT32_ONLY = {"replay"}
# The settings of benchmarks/quality, with what comes faster to where the peer ends.
OURS_BEST = {
    "ml-1m": SETTINGS["ml-1m", "next"]["recommender"]
    | {"filter_share": 0.5, "weight_averaging": 0.8},
    "beauty_s3": SETTINGS["beauty_s3", "next"]["recommender"]
    | {"emb_dim": 64, "attention_dropout": 0.4, "learning_rate": 3e-3, "weight_averaging": 0.5},
    "simulated": {"max_length": 50, "emb_dim": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["ml-1m", "beauty_s3"], default="beauty_s3")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each, taking turns")
    parser.add_argument("--epochs", type=int, default=3, help="epochs in a measurement of ours")
    parser.add_argument("--peer-epochs", type=int, default=1, help="and in one of a peer")
    parser.add_argument("--warmup", type=int, default=3, help="first steps, not counted")
    parser.add_argument("--losses", nargs="+", default=["softmax", "sampled"])
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--to-best", action="store_true", help="time to the peer's best validation")
    parser.add_argument("--peer", choices=["sasrec", "esasrec"], default="sasrec")
    parser.add_argument("--peer-settings", type=json.loads, default={}, help="JSON, over ours")
    parser.add_argument("--settings", type=json.loads, help="JSON, options of our Recommender")
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better one")
    parser.add_argument("--max-minutes", type=float, default=180.0, help="of training, for each")
    parser.add_argument("--fresh", action="store_true", help="train the peer anew for --to-best")
    parser.add_argument("--smoke", action="store_true", help="us alone on little simulated data")
    parser.add_argument("--environments", type=Path, default=Path("~/.cache/tfrec_llm_peers"))
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.data, arguments.contestants = "simulated", ["ours"]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        if arguments.to_best:
            to_best(bench)
        else:
            speed(bench)


class Bench:
    """The data written for the workers, and how a worker is run.

    Args:
        arguments: The command line's.
        folder: For the data and the jobs.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.arguments = arguments
        self.folder = folder
        self.sizes = {"emb_dim": 64, "num_layers": 2, "num_heads": 2, **SIZES[arguments.data]}
        self.data = write_data(split_of(arguments.data), folder, self.sizes["max_length"])
        needed = {CONTESTANTS[name][1] for name in arguments.contestants} - {None}
        if arguments.to_best:
            needed = set() if arguments.smoke else {"rectools"}
        self.pythons = {peer: environment(peer, arguments.environments) for peer in sorted(needed)}
        self.versions = {peer: versions(python) for peer, python in self.pythons.items()} | {
            "ours": {n: version(n) for n in ("tfrec-llm", "tensorflow", "keras", "numpy")}
        }
        self.cores = sorted(os.sched_getaffinity(0))[:CORES]

    def run(self, contestant: str, way: str, job: dict) -> dict:
        """Runs a worker in a process of its own and returns its result."""
        worker, peer, own = CONTESTANTS[contestant]
        environment_of_way, of_way = (WAYS if peer else OUR_WAYS)[way]
        files = {name: str(self.folder / f"{name}.parquet") for name in ("train", "valid")}
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        job = {**JOB, **files, "result": str(result), **own, **of_way, **job}
        path = self.folder / "job.json"
        path.write_text(json.dumps(job))
        python = self.pythons[peer] if peer else sys.executable
        done = subprocess.run(
            [python, HERE / "peers" / worker, path],
            capture_output=True,
            text=True,
            env=os.environ | threads() | environment_of_way,
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
        )
        if done.returncode:
            raise SystemExit(f"{contestant} failed:\n{done.stderr[-3000:]}")
        return json.loads(result.read_text())

    def header(self) -> dict:
        """Returns what every result file begins with."""
        return {
            "data": self.data,
            "machine": described_machine(self.cores),
            "versions": self.versions,
            "settings": {**JOB, "sizes": self.sizes},
        }


def threads() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    return {
        **dict.fromkeys((*names, "TF_NUM_INTEROP_THREADS"), str(CORES)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def split_of(name: str) -> Split:
    if name == "simulated":
        return leave_last_out(ShopSimulator(300, 400, mean_length=12, seed=0).simulate())
    return leave_last_out(load(name))


def write_data(split: Split, folder: Path, max_length: int) -> dict:
    """Writes the training log and the validation items with numbers for ids; returns their size."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def numbers(log: BehaviorLog, column: str, known: pa.Array) -> np.ndarray:
        places = pc.index_in(log.table[column].combine_chunks(), known)
        return pc.fill_null(places, len(known)).to_numpy(zero_copy_only=False).astype(np.int64)

    train, order = split.train, split.train.order()
    users, items = (pc.unique(train.table[name].combine_chunks()) for name in ("user", "item"))
    user, item = numbers(train, "user", users)[order], numbers(train, "item", items)[order]
    # The order of the log as seconds, so that nobody sees ties.
    pq.write_table(
        pa.table({"user": user, "item": item, "time": np.arange(len(user))}),
        folder / "train.parquet",
    )
    valid = split.valid
    pq.write_table(
        pa.table(
            {
                "user": numbers(valid, "user", users),
                "item": numbers(valid, "item", items),
                "time": np.full(len(valid), len(user)),
            }
        ),
        folder / "valid.parquet",
    )
    lengths = np.minimum(np.bincount(user) - 1, max_length)
    return {
        "users": len(users),
        "items": len(items),
        "rows": len(user),
        "behaviors_an_epoch": int(lengths.sum()),
        "padding": float(1 - lengths.mean() / max_length),
    }


def speed(bench: Bench) -> None:
    """Measures all, in turns, and writes the file after every measurement."""
    from tfrec_llm.training.precision import processor_multiplies_bfloat16

    arguments = bench.arguments
    path = arguments.results / f"peers_{arguments.data}.json"
    epochs_of = {"epochs": arguments.epochs, "peer_epochs": arguments.peer_epochs}
    results = bench.header() | epochs_of | {"losses": {}}
    ways = [way for way in WAYS if "bfloat16" not in way or processor_multiplies_bfloat16()]
    for loss in arguments.losses:
        runs: dict[str, dict[str, list[dict]]] = {name: {} for name in arguments.contestants}
        for number in range(arguments.rounds):
            for name in arguments.contestants:
                for way in ways_of(name, runs[name], ways):
                    length = epochs_of["peer_epochs" if CONTESTANTS[name][1] else "epochs"]
                    job = {"mode": "speed", "loss": loss, "sizes": bench.sizes}
                    job |= {"epochs": length, "warmup": arguments.warmup}
                    measured = bench.run(name, way, job)
                    runs[name].setdefault(way, []).append(measured)
                    seconds = median_seconds([measured])
                    print(f"{loss}, round {number + 1}, {name}, {way}: {seconds:.2f} s", flush=True)
                    results["losses"][loss] = summary(runs, bench.data)
                    write(path, results)
    show(results)


def ways_of(name: str, runs: dict[str, list[dict]], ways: list[str]) -> list[str]:
    """Returns all ways of a contestant in the first round, then the plain and the fastest one."""
    if runs:
        return sorted({"plain", fastest(runs)})
    if not CONTESTANTS[name][1]:
        return [*OUR_WAYS]
    return [way for way in ways if name not in FLOAT32_ONLY or "bfloat16" not in way]


def fastest(runs: dict[str, list[dict]]) -> str:
    return min(runs, key=lambda way: median_seconds(runs[way][:1]))


def summary(runs: dict[str, dict[str, list[dict]]], data: dict) -> dict:
    """Returns a dict a contestant: its fastest way, medians over its rounds, and the rounds."""
    found = {}
    for name, ways in runs.items():
        if not ways:
            continue
        way = fastest(ways)
        rounds = ways[way]
        seconds = median_seconds(rounds)
        middle = {
            key: statistics.median(one[key] for one in rounds)
            for key in ("process_megabytes", "added_megabytes", "users_a_second", "first_loss")
        }
        found[name] = {
            "way": way,
            "seconds_an_epoch": seconds,
            "microseconds_a_behavior": 1e6 * seconds / data["behaviors_an_epoch"],
            **middle,
            "rounds": ways,
        }
    return found


def show(results: dict) -> None:
    for loss, found in results["losses"].items():
        print(f"\n{loss}\n{epochs(found)}")


def to_best(bench: Bench) -> None:
    """Trains the peer to its best validation, then this library until it passes that."""
    arguments = bench.arguments
    path = arguments.results / f"to_best_{arguments.data}.json"
    seconds = 60 * arguments.max_minutes
    asked = {"model": arguments.peer, "sizes": {**bench.sizes, **arguments.peer_settings}}
    asked["loss"] = "sampled" if arguments.peer == "esasrec" else "softmax"
    results = json.loads(path.read_text()) if path.exists() else {}
    kept = results.get(arguments.peer, {}) if not arguments.fresh else {}
    results |= bench.header()
    found = results[arguments.peer] = {"asked": asked}
    if arguments.smoke:
        found["peer"] = {"curve": [{"seconds": 60.0, "ndcg@10": 0.0, "loss": 6.0}]}
    elif kept.get("asked") == asked and kept.get("peer", {}).get("stopped"):
        found["peer"] = kept["peer"]
    else:
        way = fastest_measured(arguments)
        stop = {"patience": arguments.patience, "max_seconds": seconds}
        found["peer"] = learn(
            bench, results, found, "peer", "rectools", way, {**asked, "stop": stop}
        )
    best = max(found["peer"]["curve"], key=lambda epoch: epoch["ndcg@10"])
    stop = {"patience": 0, "max_seconds": seconds, "target": best["ndcg@10"]}
    settings = arguments.settings or OURS_BEST[arguments.data]
    job = {"settings": settings, "stop": stop}
    found["ours"] = learn(bench, results, found, "ours", "ours", "plain", job)
    last = found["ours"]["curve"][-1]
    found["best"], found["reached"] = best, last["ndcg@10"] >= best["ndcg@10"]
    found["times_faster"] = best["seconds"] / last["seconds"] if found["reached"] else None
    write(path, results)
    print(f"{arguments.peer}: best NDCG@10 {best['ndcg@10']:.4f} after {best['seconds']:.1f} s")
    print(f"tfrec_llm: NDCG@10 {last['ndcg@10']:.4f} after {last['seconds']:.1f} s")
    if found["reached"]:
        print(f"{found['times_faster']:.1f} times faster")


def fastest_measured(arguments: argparse.Namespace) -> str:
    """Returns the way in which RecTools' softmax epochs were the shortest, where measured."""
    path = arguments.results / f"peers_{arguments.data}.json"
    measured = json.loads(path.read_text())["losses"] if path.exists() else {}
    return measured.get("softmax", {}).get("rectools", {}).get("way", "kept memory")


def learn(
    bench: Bench, results: dict, found: dict, key: str, contestant: str, way: str, job: dict
) -> dict:
    """Runs a worker that writes its curve after every epoch; the curve outlives a break."""
    path = bench.arguments.results / f"curve_{bench.arguments.data}_{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    more = bench.run(contestant, way, {"mode": "to_best", "curve": str(path), **job})
    found[key] = json.loads(path.read_text()) | more | {"way": way}
    write(bench.arguments.results / f"to_best_{bench.arguments.data}.json", results)
    path.unlink()
    return found[key]


def described_machine(cores: list[int]) -> dict:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    arithmetic = [one for one in known if one in flags]
    return {**machine(), "arithmetic": arithmetic, "cores": len(cores)}


if __name__ == "__main__":
    main()
