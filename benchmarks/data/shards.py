"""A log larger than memory: written to shards and trained on; seconds, peak memory, waiting.

    python benchmarks/data/shards.py [--behaviors 100_000_000] [--items 1_000_000]

Simulated behaviours (Zipf items, ten a user) are written to Parquet files first. Preparing and
training are processes of their own, so that the peak of each is its own. Waiting is the share by
which training on shards is slower than on the same batches made beforehand. Ways to share
rows out by user are compared on the first file: Arrow as the library does it, and DuckDB and
Polars where they are installed. Writes results/shards.json beside this script, and the table of
docs/data.md.
"""

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, in_new_process, machine, markdown, write

RESULT = Path(__file__).parent / "results" / "shards.json"
PAGE = Path(__file__).parents[2] / "docs" / "data.md"
BEHAVIORS_A_USER, ROWS_A_FILE, SHARDS = 10, 10_000_000, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--behaviors", type=int, default=100_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary one if none")
    parser.add_argument("--part", choices=list(PARTS | WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps((PARTS | WAYS)[arguments.part](arguments)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        options = ["--behaviors", arguments.behaviors, "--items", arguments.items]
        options += ["--steps", arguments.steps, "--folder", folder]
        result = {
            "machine": machine("tfrec-llm", "tensorflow", "keras", "numpy", "pyarrow"),
            "behaviors": arguments.behaviors,
            "items": arguments.items,
            "shards": SHARDS,
        }
        for part in PARTS:
            result[part] = in_new_process(__file__, "--part", part, *options)
            print(part, result[part], flush=True)
        for way in WAYS:
            if importlib.util.find_spec(way.partition("_")[2]):
                result[way] = in_new_process(__file__, "--part", way, *options)
    write(RESULT, result)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), RESULT), encoding="utf-8")


def renewed(page: str, path: Path) -> str:
    """Returns the page with the table that the result file gives."""
    result = json.loads(path.read_text())
    machine, train = result["machine"], result["train"]
    rows = [["", "seconds", "most memory, GB"]]
    rows += [
        [words, f"{result[part]['seconds']:.0f}", f"{result[part]['peak_gb']:.2f}"]
        for part, words in SAID.items()
        if part in result
    ]
    prepared = result["prepare"]
    text = (
        f"{result['behaviors']:,} simulated behaviours of {prepared['users']:,} users with "
        f"{result['items']:,} items, in {result['shards']} shards; {machine['cores']} cores of "
        f"{machine['processor']}, which other work shared. Memory is the whole process's, "
        f"TensorFlow and, in training, {train['model_gb']:.2f} GB of item vectors and optimizer "
        f"included. {train['steps']} steps on the shards took {train['seconds_of_steps']:.1f} s, "
        f"on the same batches made beforehand {train['seconds_of_steps_on_ready']:.1f} s: "
        f"{100 * train['waiting']:.0f} % of the time was waiting for data."
    )
    if "share_duckdb" in result:
        files = -(-result["behaviors"] // ROWS_A_FILE)
        saved = files * (result["share_pyarrow"]["seconds"] - result["share_duckdb"]["seconds"])
        text += (
            f" Rows shared out by DuckDB would save {saved:.0f} of {prepared['seconds']:.0f} s; "
            "Arrow needs no further package."
        )
    return between_marks(page, f"\n{text}\n\n{markdown(rows)}\n\n")


def simulate(arguments: argparse.Namespace) -> dict:
    begin = time.perf_counter()
    rng = np.random.default_rng(0)
    users = arguments.behaviors // BEHAVIORS_A_USER
    shares = 1.0 / np.arange(1, arguments.items + 1)
    bounds = np.cumsum(shares / shares.sum())
    (arguments.folder / "log").mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, arguments.behaviors, ROWS_A_FILE)):
        size = min(ROWS_A_FILE, arguments.behaviors - first)
        table = pa.table(
            {
                "user": rng.integers(0, users, size),
                "item": np.minimum(np.searchsorted(bounds, rng.random(size)), arguments.items - 1),
                "time": rng.integers(0, 10**9, size),
            }
        )
        pq.write_table(table, arguments.folder / "log" / f"{number:03}.parquet")
    return measured(begin)


def prepare(arguments: argparse.Namespace) -> dict:
    import tfrec_llm as tr

    begin = time.perf_counter()
    folder = arguments.folder
    shards = tr.data.Shards.write(folder / "log", folder / "shards", num_shards=SHARDS)
    files = sum(file.stat().st_size for file in (folder / "shards").iterdir())
    return measured(begin) | {
        "users": shards.num_users,
        "behaviors": shards.num_behaviors,
        "disk_gb": files / 2**30,
    }


def train(arguments: argparse.Namespace) -> dict:
    import keras

    import tfrec_llm as tr

    shards = tr.data.Shards.open(arguments.folder / "shards")
    batches = tr.data.ShardedBatches(shards, tr.data.NextBehavior(), max_length=50)
    encoder = tr.models.BehaviorEncoder(shards.vocabulary.size, 64, 2, 2, max_length=50)
    model = tr.models.NextBehaviorModel(encoder)
    model.compile(tr.optimizers.LazyAdam(1e-3), loss=tr.losses.SampledCrossEntropy())

    class Clock(keras.callbacks.Callback):
        """Seconds from the tenth step on; the first ones compile."""

        def on_train_batch_end(self, batch, logs=None):
            if batch == 9:
                self.begin = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds = time.perf_counter() - self.begin

    class Stretch(keras.utils.PyDataset):
        def __init__(self, of, steps):
            super().__init__()
            self.of, self.steps = of, steps

        def __len__(self):
            return self.steps

        def __getitem__(self, index):
            return self.of(index)

    begin = time.perf_counter()
    # Other batches than one and the same, whose items would stay in the processor's cache.
    ready = [batches[index] for index in range(arguments.steps)]
    sources = {"shards": lambda index: batches[index], "ready": lambda index: ready[index]}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(3):  # in turns, as a machine's speed drifts
        for name, source in sources.items():
            clock = Clock()
            data = Stretch(source, arguments.steps)
            model.fit(data, shuffle=False, callbacks=[clock], verbose=0)
            seconds[name].append(clock.seconds)
        batches.on_epoch_end()
    # The reading of every block, one after another, by the steps it feeds.
    reading = time.perf_counter()
    for index in range(0, len(batches), max(1, len(batches) // 8)):
        batches[index]
    whole, made = (float(np.median(seconds[name])) for name in sources)
    table = encoder.item_embedding.table
    return measured(begin) | {
        "steps": arguments.steps - 10,
        "seconds_of_steps": whole,
        "seconds_of_steps_on_ready": made,
        "waiting": max(0.0, 1.0 - made / whole),
        "model_gb": 3 * 4 * int(np.prod(table.shape)) / 2**30,
        "eight_blocks_read_one_by_one_seconds": time.perf_counter() - reading,
    }


def share_pyarrow(arguments: argparse.Namespace) -> dict:
    from tfrec_llm.data.reading import parquet_batches
    from tfrec_llm.data.shard_writing import Places, RowsByShard

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = RowsByShard(Path(folder), Places(SHARDS, 0.0))
        for table in parquet_batches(first_file(arguments), columns=["user", "item", "time"]):
            rows.add(table)
        rows.close()
    return measured(begin)


def share_duckdb(arguments: argparse.Namespace) -> dict:
    import duckdb

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        duckdb.sql("SET preserve_insertion_order = true")
        duckdb.sql(
            f"COPY (SELECT *, hash(user) % {SHARDS} AS shard FROM '{first_file(arguments)}') "
            f"TO '{folder}/shards' (FORMAT parquet, PARTITION_BY (shard))"
        )
    return measured(begin)


def share_polars(arguments: argparse.Namespace) -> dict:
    import polars as pl

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = pl.scan_parquet(first_file(arguments)).with_columns(
            shard=pl.col("user").hash() % SHARDS
        )
        rows.sink_parquet(pl.PartitionBy(folder, key="shard"), mkdir=True)
    return measured(begin)


def first_file(arguments: argparse.Namespace) -> Path:
    return arguments.folder / "log" / "000.parquet"


def measured(begin: float) -> dict:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": time.perf_counter() - begin, "peak_gb": peak}


WAYS = {
    "share_pyarrow": share_pyarrow,
    "share_duckdb": share_duckdb,
    "share_polars": share_polars,
}
SAID = {
    "prepare": "log to shards",
    "train": "trained, with the start of TensorFlow",
    "share_pyarrow": "rows of one of ten files shared out by user: Arrow, as the library does it",
    "share_duckdb": "the same by DuckDB",
    "share_polars": "the same by Polars",
}
PARTS = {"simulate": simulate, "prepare": prepare, "train": train}

if __name__ == "__main__":
    main()
