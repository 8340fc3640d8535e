"""What catalogues of millions of items cost: seconds and peak memory, each in a process of its own.

    python benchmarks/memory/large_catalogue.py [--rounds 3] [--only steps evaluate]

- data: a log of ten million behaviours over a million items becomes training batches.
- train: `Recommender` trains an epoch on that log and is evaluated on a sample of its users.
- steps: a training step with 10,000 and with a million items, by LazyAdam and by Adam. The
  variants alternate, and medians are reported.
- evaluate, recommend: a thousand users over a million items, in blocks of items; and in whole rows
  of scores, which must give the same.
- largest: ten million items, two training steps and recommendations.

Behaviours are simulated: items by Zipf's law, each at least once. Prints a table and writes
results/large_catalogue.json beside this script; `--only` leaves the other measurements as they are
in it.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import Stopwatch, in_new_process, machine, write

EMB_DIM, LAYERS, HEADS, MAX_LENGTH = 64, 2, 2, 50
FEW_USERS = 32
PACKAGES = ("tfrec-llm", "tensorflow", "keras", "numpy")
PARTS = ("data", "train", "steps", "evaluate", "recommend", "largest")
RESULTS = Path(__file__).parent / "results" / "large_catalogue.json"
GIGABYTES_ALLOWED = {"train": 8.0, "largest": 20.0}
STEP_RATIO_ALLOWED = 1.5


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--few-items", type=int, default=10_000)
    parser.add_argument("--most-items", type=int, default=10_000_000)
    parser.add_argument("--behaviors", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000, help="users to evaluate")
    parser.add_argument("--steps", type=int, default=40, help="training steps timed in a process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        name, *options = arguments.measure
        print(json.dumps(MEASUREMENTS[name](arguments, *options)))
        return
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = folder
        for part in arguments.only:
            results[part] = measured(arguments, part)
            results["machine"] = machine(*PACKAGES)
            write(arguments.results, results)
    show(results)
    refuse_what_is_too_much(results)


def measured(arguments: argparse.Namespace, part: str) -> dict[str, Any]:
    """Returns what the part's processes measured, medians over the rounds."""
    if part in ("data", "train") and not Path(arguments.folder, "log.parquet").exists():
        measurement(arguments, "simulate")
    if part == "steps":
        kinds = [
            (optimizer, items)
            for optimizer in ("lazy_adam", "adam")
            for items in (arguments.few_items, arguments.items)
        ]
        runs: dict[Any, list[dict]] = {kind: [] for kind in kinds}
        for _ in range(arguments.rounds):
            for optimizer, items in kinds:
                runs[optimizer, items].append(measurement(arguments, "step", optimizer, items))
        return {
            f"{optimizer}, {items} items": medians(runs[optimizer, items])
            for optimizer, items in kinds
        }
    if part in ("evaluate", "recommend"):
        ways = ("blocks", "whole rows")
        found: dict[str, list[dict]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way in ways:
                found[way].append(measurement(arguments, part, way))
        digests = {run.pop("digest") for of_way in found.values() for run in of_way}
        return {way: medians(found[way]) for way in ways} | {"equal": len(digests) == 1}
    return measurement(arguments, part)


def measurement(arguments: argparse.Namespace, name: str, *options: Any) -> dict[str, Any]:
    sizes = ("items", "few_items", "most_items", "behaviors", "users", "steps")
    given = [(f"--{size.replace('_', '-')}", getattr(arguments, size)) for size in sizes]
    told = ["--folder", arguments.folder, *(part for pair in given for part in pair)]
    return in_new_process(__file__, *told, "--measure", name, *options)


def zipf(rng: Any, items: int, count: int) -> Any:
    """Returns int64 `[count]` in 0..items-1: rank r about as often as 1 / (r + 1)."""
    import numpy as np

    return np.minimum(np.exp(rng.random(count) * np.log(items + 1)).astype(np.int64) - 1, items - 1)


def simulate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes a log to the folder: every item at least once, the others by Zipf's law."""
    import numpy as np
    import pyarrow as pa

    from tfrec_llm.data import BehaviorLog

    rng = np.random.default_rng(0)
    more = arguments.behaviors - arguments.items
    items = np.concatenate([np.arange(arguments.items), zipf(rng, arguments.items, more)])
    users = rng.integers(0, max(1, arguments.behaviors // 10), arguments.behaviors)
    table = {"user": users, "item": rng.permutation(items), "time": np.arange(len(items))}
    BehaviorLog.from_arrow(pa.table(table)).to_parquet(f"{arguments.folder}/log.parquet")
    return {}


def data(arguments: argparse.Namespace) -> dict[str, Any]:
    watch = Stopwatch()
    from tfrec_llm.data import BehaviorLog, UserSequences, Vocabulary, next_batches

    watch.lap("import")
    log = BehaviorLog.from_parquet(f"{arguments.folder}/log.parquet")
    watch.lap("read Parquet")
    vocabulary = Vocabulary.fit(log.item)
    watch.lap("vocabulary")
    sequences = UserSequences.from_log(log, vocabulary)
    watch.lap("sequences")
    batches = next_batches(sequences, max_length=MAX_LENGTH)
    watch.lap("pack an epoch")
    for index in range(100):
        batches[index % len(batches)]
    watch.lap("make 100 batches")
    size = {"behaviors": len(log), "users": len(sequences), "items": len(vocabulary)}
    return {**size, "batches": len(batches), "seconds": watch.seconds, **peak()}


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    watch = Stopwatch()
    import numpy as np

    import tfrec_llm as tr

    watch.lap("import")
    log = tr.data.BehaviorLog.from_parquet(f"{arguments.folder}/log.parquet")
    split = tr.data.leave_last_out(log)
    rows = np.random.default_rng(0).choice(len(split.valid), arguments.users, replace=False)
    sample = split.valid.take(np.sort(rows))
    watch.lap("read and split")
    recommender = tr.Recommender(
        emb_dim=EMB_DIM,
        num_layers=LAYERS,
        num_heads=HEADS,
        max_length=MAX_LENGTH,
        loss="sampled",
        optimizer="lazy_adam",
    )
    recommender.fit(split.train, validation=sample, epochs=1, verbose=0)
    watch.lap("fit an epoch")
    report = recommender.evaluate(sample, k=10, metrics=("ndcg",), confidence=None)
    watch.lap("evaluate the sample")
    recommender.recommend(users=recommender.histories.user_ids[:100], k=10)
    watch.lap("recommend to 100 users")
    return {
        "behaviors": len(log),
        "items": len(recommender.vocabulary),
        "evaluated_users": arguments.users,
        "ndcg@10": report["ndcg@10"],
        "seconds": watch.seconds,
        **peak(),
    }


def step(arguments: argparse.Namespace, optimizer: str, items: str) -> dict[str, Any]:
    import numpy as np

    model, sequences = made(int(items), optimizer)
    from tfrec_llm.data import next_batches

    batches = next_batches(sequences, max_length=MAX_LENGTH)
    seconds = []
    for index in range(arguments.steps + 3):
        inputs, targets = batches[index % len(batches)]
        start = time.perf_counter()
        loss = float(np.asarray(model.train_on_batch(inputs, targets)))
        seconds.append(time.perf_counter() - start)
    return {
        "milliseconds": 1e3 * statistics.median(seconds[3:]),
        "loss": loss,
        "behaviors_a_step": batches.num_behaviors / len(batches),
        **peak(),
    }


def evaluate(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    import numpy as np

    from tfrec_llm.data import UserSequences
    from tfrec_llm.evaluation import RankingTask

    scorer = in_blocks(arguments)
    targets = zipf(np.random.default_rng(1), arguments.items, arguments.users) + 3
    offsets = np.arange(arguments.users + 1)
    task = RankingTask(
        scorer.histories, UserSequences(targets.astype(np.int32), offsets), scorer.vocabulary
    )
    scores = scorer if way == "blocks" else scorer.score
    task.take(np.arange(4)).rank(scores)  # the model's graph is made
    start = time.perf_counter()
    task.rank(scores)
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, **peak()}
    # Equal numbers of users at a time make equal products.
    ranking = task.take(np.arange(FEW_USERS)).rank(scores, list_length=10, chunk_size=FEW_USERS)
    return found | {"digest": digest(ranking.ranks, ranking.lists)}


def recommend(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    import numpy as np

    scorer = in_blocks(arguments)
    if way != "blocks":
        scorer = in_whole_rows(scorer)
    scorer.recommend(histories=scorer.histories.take([0, 1]))
    start = time.perf_counter()
    scorer.recommend(k=10)
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, **peak()}
    few = scorer.histories.take(np.arange(FEW_USERS))
    frame = scorer.recommend(histories=few, k=10, batch_size=FEW_USERS)
    items = scorer.vocabulary.encode(frame["item"].to_numpy())
    return found | {"digest": digest(items, frame["score"].to_numpy())}


def largest(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    watch = Stopwatch()
    model, sequences = made(arguments.most_items, "lazy_adam")
    from tfrec_llm.data import Vocabulary, next_batches
    from tfrec_llm.evaluation import ModelScorer

    watch.lap("make the model")
    batches = next_batches(sequences, max_length=MAX_LENGTH)
    losses = []
    for index in range(2):
        losses.append(float(np.asarray(model.train_on_batch(*batches[index]))))
        watch.lap(f"step {index + 1}")
    vocabulary = Vocabulary(np.arange(arguments.most_items))
    scorer = ModelScorer(model, vocabulary, histories=sequences.take(np.arange(100)))
    watch.lap("make the vocabulary")
    scorer.recommend(k=10)
    watch.lap("recommend to 100 users")
    return {"items": len(vocabulary), "losses": losses, "seconds": watch.seconds, **peak()}


def made(items: int, optimizer: str) -> Any:
    """Returns a model that is ready to train, and histories of its items."""
    import keras
    import numpy as np

    from tfrec_llm.data import UserSequences
    from tfrec_llm.losses import SampledCrossEntropy
    from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel
    from tfrec_llm.optimizers import LazyAdam

    keras.utils.set_random_seed(0)
    encoder = BehaviorEncoder(items + 3, EMB_DIM, LAYERS, HEADS, max_length=MAX_LENGTH)
    model = NextBehaviorModel(encoder)
    model.build()
    kind = LazyAdam if optimizer == "lazy_adam" else keras.optimizers.Adam
    model.compile(kind(1e-3), loss=SampledCrossEntropy(seed=0))
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / 9, 20_000) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    histories = (zipf(rng, items, offsets[-1]) + 3).astype(np.int32)
    return model, UserSequences(histories, offsets)


def in_blocks(arguments: argparse.Namespace) -> Any:
    import numpy as np

    from tfrec_llm.data import Vocabulary
    from tfrec_llm.evaluation import ModelScorer

    model, sequences = made(arguments.items, "lazy_adam")
    vocabulary = Vocabulary(np.arange(arguments.items))
    histories = sequences.take(np.arange(arguments.users))
    return ModelScorer(model, vocabulary, histories=histories)


def in_whole_rows(scorer: Any) -> Any:
    from tfrec_llm.evaluation import Scorer

    class WholeRows(Scorer):
        vocabulary, histories = scorer.vocabulary, scorer.histories

        def score(self, sequences):
            return scorer.score(sequences)

    return WholeRows()


def digest(*arrays: Any) -> str:
    import hashlib

    return hashlib.sha256(b"".join(values.tobytes() for values in arrays)).hexdigest()


def peak() -> dict[str, float]:
    """Returns the process' peak memory; Linux counts kilobytes."""
    return {"peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def medians(runs: list[dict]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def step_ratio(results: dict[str, Any], optimizer: str = "lazy_adam") -> float:
    """Returns a step's time with many items by that with few."""
    few, many = (
        values["milliseconds"]
        for name, values in results["steps"].items()
        if name.startswith(f"{optimizer},")
    )
    return many / few


def show(results: dict[str, Any]) -> None:
    for part in (part for part in PARTS if part in results):
        found = results[part]
        lines = {part: found} if "peak_gigabytes" in found else found
        for name, one in lines.items():
            if not isinstance(one, dict):
                continue
            seconds = one.get("seconds", {})
            steps = seconds.items() if isinstance(seconds, dict) else [(part, seconds)]
            cells = [f"{step} {value:.2f} s" for step, value in steps]
            if "milliseconds" in one:
                cells.append(f"{one['milliseconds']:.1f} ms a step")
            print(f"{name:28} {one['peak_gigabytes']:6.2f} GB   {', '.join(cells)}")
    if "steps" in results:
        for optimizer in ("lazy_adam", "adam"):
            print(
                f"many items by few, {optimizer}: {step_ratio(results, optimizer):.2f} times a step"
            )


def refuse_what_is_too_much(results: dict[str, Any]) -> None:
    for part, allowed in GIGABYTES_ALLOWED.items():
        if part in results and results[part]["peak_gigabytes"] > allowed:
            raise SystemExit(f"{part} took more than {allowed} GB.")
    if "steps" in results and step_ratio(results) > STEP_RATIO_ALLOWED:
        raise SystemExit(f"A step grew by more than {STEP_RATIO_ALLOWED} times.")
    for part in ("evaluate", "recommend"):
        if part in results and not results[part]["equal"]:
            raise SystemExit(f"{part}: blocks and whole rows differ.")


MEASUREMENTS = {
    "simulate": simulate,
    "data": data,
    "train": train,
    "step": step,
    "evaluate": evaluate,
    "recommend": recommend,
    "largest": largest,
}

if __name__ == "__main__":
    main()
