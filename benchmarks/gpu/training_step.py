"""Training on a GPU: behaviours a second, the share of the card's peak, minutes to a good model.

    python benchmarks/gpu/training_step.py [--backends jax tensorflow] [--sizes small] [--train]

For each backend that is installed and each size of model, a process of its own trains the library's
packed batches in half precision and measures

- the step alone, in a `fit` on batches that are made already;
- `fit`, whole epochs with the assembly of the batches;
- on JAX, the library's attention, forward and backward and without dropout, beside what
  `jax.nn.dot_product_attention` makes of XLA and of cuDNN.

Histories are drawn at random. With `--train` the setting of benchmarks/quality learns ml-1m (from
TFREC_DATA) to its best validation NDCG@10. Prints a table and writes results/<device>.json beside
this script. Without a GPU it runs, too, only slowly; `--sizes tiny` tries the whole path.
"""

import argparse
import importlib.util
import json
import os
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import in_new_process, write

HERE = Path(__file__).parent

# Dense matrix products of the card's makers, TFLOP/s, in the half precision it is made for. The
# first name that is part of the device's is meant.
PEAKS = {
    "H200": (989, "bfloat16"),
    "H100 PCIe": (756, "bfloat16"),
    "H100": (989, "bfloat16"),
    "A100": (312, "bfloat16"),
    "L40S": (362, "bfloat16"),
    "L4": (121, "bfloat16"),
    "V100": (125, "float16"),
    "T4": (65, "float16"),
}


@dataclass(frozen=True)
class Size:
    """A model and the batches it is trained on."""

    emb_dim: int
    num_layers: int
    num_heads: int
    items: int
    users: int
    mean_length: int
    max_length: int
    rows: int

    def flops_a_behavior(self, mean_length: float) -> float:
        """Returns those of forward and backward; a behaviour looks at half its history."""
        block = 12 * self.emb_dim**2 + mean_length * self.emb_dim
        return 6 * (self.items * self.emb_dim + self.num_layers * block)


SIZES = {
    "tiny": Size(16, 1, 2, items=50, users=40, mean_length=12, max_length=24, rows=4),
    # MovieLens-1M's shape.
    "small": Size(64, 2, 2, items=3416, users=6040, mean_length=165, max_length=200, rows=256),
    "large": Size(512, 8, 8, items=50_000, users=8000, mean_length=300, max_length=512, rows=128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow"])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["small", "large"])
    parser.add_argument("--train", action="store_true", help="ml-1m to its best validation NDCG")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measured = train() if arguments.one == "train" else measure(SIZES[arguments.one])
        print(json.dumps(measured))
        return
    found: dict[str, dict[str, Any]] = {}
    for backend in arguments.backends:
        if importlib.util.find_spec(backend) is None:
            print(f"{backend} is not installed: left out.")
            continue
        tasks = [*arguments.sizes, *(["train"] if arguments.train else [])]
        found[backend] = {
            task: in_new_process(__file__, "--one", task, environment={"KERAS_BACKEND": backend})
            for task in tasks
        }
    if not found:
        raise SystemExit("None of the backends is installed.")
    show(found)
    device = next(iter(next(iter(found.values())).values()))["machine"]["device"]
    path = arguments.results / f"{re.sub('[^a-z0-9]+', '_', device.lower())}.json"
    write(path, found)


def measure(size: Size) -> dict[str, Any]:
    import keras
    import numpy as np

    from tfrec_llm.data import NextBehavior, PackedBatches
    from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel

    keras.utils.set_random_seed(0)
    described = machine()
    encoder = BehaviorEncoder(
        size.items + 3,
        size.emb_dim,
        size.num_layers,
        size.num_heads,
        max_length=size.max_length,
        dropout=0.2,
        dtype=described["precision"],
    )
    model = NextBehaviorModel(encoder)
    model.compile(keras.optimizers.Adam(1e-3))
    sequences = histories(size)
    batches = PackedBatches(
        sequences, NextBehavior(), max_length=size.max_length, batch_size=size.rows
    )
    step, behaviors = step_seconds(model, batches)
    watch = epoch_watch()
    model.fit(batches, epochs=4, callbacks=[watch], verbose=0)
    # The first epoch compiles.
    epoch = statistics.median(watch.seconds[1:])
    read = float(np.minimum(sequences.lengths - 1, size.max_length).mean())
    flops = size.flops_a_behavior(read)
    peak = described["peak_teraflops"]
    measured: dict[str, Any] = {
        "size": asdict(size),
        "mean_length": read,
        "fill": batches.packing.fill,
        "flops_a_behavior": flops,
        "step": rate(behaviors / step, flops, peak) | {"seconds": step, "behaviors": behaviors},
        "fit": rate(batches.num_behaviors / epoch, flops, peak)
        | {"epoch_seconds": watch.seconds, "behaviors": batches.num_behaviors},
        "peak_memory_gigabytes": peak_memory(),
        "machine": described,
    }
    if keras.backend.backend() == "jax":
        measured["attention_milliseconds"] = attention(size, batches.row_length)
    return measured


def histories(size: Size) -> Any:
    """Returns random histories: lengths of a heavy tail, items by Zipf's law."""
    import numpy as np

    from tfrec_llm.data import UserSequences
    from tfrec_llm.data.vocabulary import NUM_RESERVED

    rng = np.random.default_rng(0)
    lengths = np.maximum(2, rng.lognormal(-0.5, 1.0, size.users) * size.mean_length).astype(int)
    shares = 1.0 / np.arange(1, size.items + 1)
    items = rng.choice(size.items, lengths.sum(), p=shares / shares.sum()) + NUM_RESERVED
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return UserSequences(items.astype(np.int32), offsets)


def step_seconds(model: Any, batches: Any, steps: int = 20) -> tuple[float, float]:
    """Returns the seconds of a step on batches that are made already, and the behaviours in one."""
    import keras
    import numpy as np

    first = [batches[index] for index in range(min(4, len(batches)))]

    class Made(keras.utils.PyDataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            return first[index % len(first)]

    watch = epoch_watch()
    model.fit(Made(), epochs=4, callbacks=[watch], verbose=0)
    # The first epoch compiles.
    behaviors = [(first[index % len(first)][0]["segments"] > 0).sum() for index in range(steps)]
    return statistics.median(watch.seconds[1:]) / steps, float(np.mean(behaviors))


def epoch_watch() -> Any:
    """Returns a callback whose `seconds` are those of the epochs."""
    import keras

    class Watch(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch, logs=None):
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter() - self.begin)

    return Watch()


def attention(size: Size, length: int) -> dict[str, float | str]:
    """Returns milliseconds of a layer's attention, forward and backward, or why there are none."""
    import jax
    import jax.numpy as jnp

    width = size.emb_dim // size.num_heads
    shape = (size.rows, length, size.num_heads, width)
    query, key, value = jax.random.normal(jax.random.key(0), (3, *shape), jnp.bfloat16)
    segments = jnp.arange(length) // max(1, length // 3)
    sees = (segments[:, None] == segments[None, :]) & jnp.tri(length, dtype=bool)
    mask = jnp.broadcast_to(sees, (size.rows, 1, length, length))

    def library(query, key, value):
        logits = jnp.einsum("rqhd,rkhd->rhqk", query * width**-0.5, key)
        logits = logits + jnp.where(mask, 0.0, -1e9).astype(logits.dtype)
        return jnp.einsum("rhqk,rkhd->rqhd", jax.nn.softmax(logits), value)

    def fused(implementation):
        return lambda query, key, value: jax.nn.dot_product_attention(
            query, key, value, mask=mask, implementation=implementation
        )

    measured: dict[str, float | str] = {}
    for name, function in (
        ("library", library),
        ("XLA", fused("xla")),
        ("cuDNN", fused("cudnn")),
    ):
        total = lambda *inputs, of=function: of(*inputs).astype(jnp.float32).sum()  # noqa: E731
        gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
        try:
            jax.block_until_ready(gradients(query, key, value))
        except (RuntimeError, ValueError, NotImplementedError) as error:
            measured[name] = f"not usable: {str(error).splitlines()[0]}"
            continue
        seconds = []
        for _ in range(10):
            begin = time.perf_counter()
            jax.block_until_ready(gradients(query, key, value))
            seconds.append(time.perf_counter() - begin)
        measured[name] = 1e3 * statistics.median(seconds)
    return measured


def train() -> dict[str, Any]:
    """Trains ml-1m as benchmarks/quality does; returns minutes to its best validation NDCG@10."""
    import keras

    sys.path.insert(0, str(HERE.parent / "quality"))
    from settings import SETTINGS
    from splits import split_of

    from tfrec_llm import Recommender

    setting, split = SETTINGS["ml-1m", "next"], split_of("ml-1m")
    recommender = Recommender("next", **setting["recommender"])
    ends: list[float] = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter() - begin)
    )
    begin = time.perf_counter()
    recommender.fit(
        split.train, validation=split.valid, callbacks=[note], verbose=0, **setting["fit"]
    )
    values = [row["val_ndcg@10"] for row in recommender.curve]
    best = max(range(len(values)), key=values.__getitem__)
    test = recommender.evaluate(split.test, k=10, metrics=("hr", "ndcg"), confidence=None)
    return {
        "setting": setting,
        "best_epoch": best,
        "validation_ndcg@10": values[best],
        "minutes_to_best": ends[best] / 60,
        "minutes": ends[-1] / 60,
        "test": dict(test),
        "machine": machine(),
    }


def rate(behaviors_a_second: float, flops: float, peak: float | None) -> dict[str, float | None]:
    teraflops = behaviors_a_second * flops / 1e12
    return {
        "behaviors_a_second": behaviors_a_second,
        "teraflops": teraflops,
        "share_of_peak": None if peak is None else teraflops / peak,
    }


def machine() -> dict[str, Any]:
    import keras

    from tfrec_llm.training import fast_precision

    backend, device = keras.backend.backend(), "CPU"
    if backend == "jax":
        import jax

        if jax.default_backend() != "cpu":
            device = jax.devices()[0].device_kind
    else:
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
        if cards:
            device = tf.config.experimental.get_device_details(cards[0])["device_name"]
    known = next((PEAKS[name] for name in PEAKS if name in device), None)
    return {
        "device": device,
        "peak_teraflops": None if known is None else known[0],
        "precision": fast_precision() if known is None else f"mixed_{known[1]}",
        "processor_cores": os.cpu_count(),
        **{name: version(name) for name in ("tfrec-llm", "keras", backend)},
    }


def peak_memory() -> float | None:
    """Returns gigabytes that were in use on the card at most; None on a CPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        counted = jax.devices()[0].memory_stats() or {}
        peak = counted.get("peak_bytes_in_use")
    else:
        import tensorflow as tf

        on_card = tf.config.list_physical_devices("GPU")
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_card else None
    return None if peak is None else peak / 1e9


def show(found: dict[str, dict[str, Any]]) -> None:
    columns = ("behaviours/s, step", "of peak", "behaviours/s, fit", "of peak", "GB")
    print(f"{'':20}" + "".join(f"{column:>20}" for column in columns))
    for backend, tasks in found.items():
        for name, one in tasks.items():
            if name == "train":
                continue
            cells = []
            for part in ("step", "fit"):
                share = one[part]["share_of_peak"]
                cells += [
                    f"{one[part]['behaviors_a_second']:,.0f}",
                    "unknown" if share is None else f"{100 * share:.1f} %",
                ]
            memory = one["peak_memory_gigabytes"]
            cells.append("" if memory is None else f"{memory:.2f}")
            print(f"{f'{backend}, {name}':20}" + "".join(f"{cell:>20}" for cell in cells))
            for kind, value in one.get("attention_milliseconds", {}).items():
                shown = value if isinstance(value, str) else f"{value:.3f} ms"
                print(f"    attention, {kind}: {shown}")
    for backend, tasks in found.items():
        if "train" in tasks:
            one = tasks["train"]
            print(
                f"ml-1m on {backend}: validation NDCG@10 {one['validation_ndcg@10']:.4f} after "
                f"{one['minutes_to_best']:.1f} minutes; test {one['test']}"
            )
    machines = {one["machine"]["device"] for tasks in found.values() for one in tasks.values()}
    print(f"on {', '.join(sorted(machines))}")


if __name__ == "__main__":
    main()
