"""How long a large log takes to become user sequences, and how much memory.

    python benchmarks/data/sequences.py [--behaviors 10000000] [--items 1000000]

A simulated log is written as Parquet; a fresh process then reads it, fits a vocabulary, builds the
sequences and saves them, and its peak memory is taken. Prints a table and writes
results/sequences.json beside this script.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from reporting import Stopwatch, machine, write

SECONDS_ALLOWED, GIGABYTES_ALLOWED = 30.0, 4.0
MEAN_LENGTH = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--behaviors", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="the median run is reported")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulated = in_new_process(simulate, arguments.behaviors, arguments.items, folder)
        runs = [in_new_process(prepare, folder) for _ in range(arguments.runs)]
        string_runs = [in_new_process(prepare, folder, True) for _ in range(arguments.runs)]
    results = {
        "log": simulated["log"],
        "simulation": simulated["seconds"],
        "integer ids": median(runs),
        "string ids": median(string_runs),
        "machine": machine("tfrec-llm", "numpy", "pyarrow"),
        "allowed": {"seconds": SECONDS_ALLOWED, "gigabytes": GIGABYTES_ALLOWED},
    }
    show(results)
    path = Path(__file__).parent / "results" / "sequences.json"
    write(path, results)
    for ids in ("integer ids", "string ids"):
        run = results[ids]
        if run["total"] > SECONDS_ALLOWED or run["peak_gigabytes"] > GIGABYTES_ALLOWED:
            raise SystemExit(f"{ids}: too slow or too large")


def simulate(behaviors: int, items: int, folder: str) -> dict:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tfrec_llm.data.simulator import ShopSimulator

    watch = Stopwatch()
    shop = ShopSimulator(behaviors // MEAN_LENGTH, items, mean_length=MEAN_LENGTH)
    log = shop.simulate()
    watch.lap("simulate")
    log.to_parquet(f"{folder}/log.parquet")
    watch.lap("write Parquet")
    named = log.table
    for column, prefix in (("user", "u"), ("item", "sku-")):
        names = pc.binary_join_element_wise(prefix, named[column].cast(pa.string()), "")
        named = named.set_column(named.column_names.index(column), column, names)
    pq.write_table(named, f"{folder}/named.parquet", compression="zstd")
    size = {"behaviors": len(log), "users": log.num_users, "items": log.num_items}
    return {"log": size, "seconds": watch.seconds}


def prepare(folder: str, string_ids: bool = False) -> dict:
    watch = Stopwatch()
    from tfrec_llm.data.behavior_log import BehaviorLog
    from tfrec_llm.data.sequences import UserSequences
    from tfrec_llm.data.vocabulary import Vocabulary

    watch.lap("import")
    log = BehaviorLog.from_parquet(f"{folder}/{'named' if string_ids else 'log'}.parquet")
    watch.lap("read Parquet")
    vocabulary = Vocabulary.fit(log.item)
    watch.lap("vocabulary")
    sequences = UserSequences.from_log(log, vocabulary)
    watch.lap("sequences")
    vocabulary.save(f"{folder}/vocabulary.parquet")
    sequences.save(f"{folder}/sequences")
    watch.lap("save")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts kilobytes
    total = sum(watch.seconds.values())
    return {"seconds": watch.seconds, "total": round(total, 3), "peak_gigabytes": round(peak, 3)}


def in_new_process(function, *arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def median(runs: list[dict]) -> dict:
    return sorted(runs, key=lambda run: run["total"])[len(runs) // 2]


def show(results: dict) -> None:
    log = results["log"]
    print(f"{log['behaviors']:,} behaviours, {log['users']:,} users, {log['items']:,} items")
    print(f"\n{'seconds':<16}{'integer ids':>14}{'string ids':>14}")
    runs = [results["integer ids"], results["string ids"]]
    for step in runs[0]["seconds"]:
        print(f"{step:<16}" + "".join(f"{run['seconds'][step]:>14.2f}" for run in runs))
    print(f"{'total':<16}" + "".join(f"{run['total']:>14.2f}" for run in runs))
    print(f"{'peak memory, GB':<16}" + "".join(f"{run['peak_gigabytes']:>14.2f}" for run in runs))
    steps = ", ".join(f"{name} {value:.1f} s" for name, value in results["simulation"].items())
    print(f"\nbefore that: {steps}")


if __name__ == "__main__":
    main()
