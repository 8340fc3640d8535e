"""The training step beside plain Keras: seconds a real behaviour, peak memory, share of the limit.

    python benchmarks/speed/training_step.py [--rounds 5]

Both train the same architecture on the same histories with the full softmax and Adam: plain Keras
as one writes it (histories padded to 200, all logits, `SparseCategoricalCrossentropy`), the library
as it comes. A step of either reads the same number of real behaviours. Every measurement is a
process of its own; the variants alternate, and medians are reported. The histories are those of
MovieLens-1M where TFREC_DATA says where it is, else simulated ones of the same shape. Where the
time of the library's step goes is read from TensorFlow's profiler. Prints tables and writes
results/training_step.json beside this script; `speed_tables.py` then renews docs/speed.md.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from reporting import in_new_process, machine, write

EMB_DIM, LAYERS, HEADS, MAX_LENGTH, DROPOUT = 64, 2, 2, 200, 0.2
USERS_A_STEP, STEPS = 128, 12
PACKAGES = ("tfrec-llm", "tensorflow", "keras", "numpy")
VARIANTS = ("plain Keras, float32", "library, float32", "library, bfloat16")
# What TensorFlow's operations do, by what their names contain; the first that fits counts.
KINDS = {
    "matrix products": ("MatMul", "Einsum"),
    "softmax": ("Softmax",),
    "dropout's random numbers": ("Random",),
    "rows of tables": ("Gather", "Segment", "Scatter", "OneHot"),
    "moving and casting": ("Transpose", "Cast", "Concat", "Slice", "Pack", "Split", "Broadcast"),
}
REST = "elementwise, sums and maxima"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variant", choices=[*VARIANTS, *OTHERS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        measure = OTHERS.get(arguments.variant)
        print(json.dumps(measure() if measure else step(arguments.variant)))
        return
    runs: dict[str, list[dict]] = {name: [] for name in (*VARIANTS, *OTHERS)}
    for _ in range(arguments.rounds):
        for name, measured in runs.items():
            measured.append(in_new_process(__file__, "--variant", name))
    results = summary({name: medians(measured) for name, measured in runs.items()})
    show(results)
    path = Path(__file__).parent / "results" / "training_step.json"
    write(path, results)


def medians(runs: list[dict]) -> dict:
    return {
        name: statistics.median(run[name] for run in runs)
        if isinstance(runs[0][name], (int, float))
        else runs[0][name]
        for name in runs[0]
    }


def histories():
    """Returns the histories, cut to the newest 201, and where they come from."""
    import numpy as np

    from tfrec_llm.data import ShopSimulator, UserSequences, Vocabulary, leave_last_out, load

    folder = os.environ.get("TFREC_DATA")
    if folder and (Path(folder) / "ml-1m").exists():
        log, source = leave_last_out(load("ml-1m")).train, "MovieLens-1M"
    else:
        log = ShopSimulator(6040, 3416, mean_length=165, seed=0).simulate()
        source = "simulated"
    sequences = UserSequences.from_log(log, Vocabulary.fit(log.item))
    sequences = sequences.newest(MAX_LENGTH + 1)
    order = np.random.default_rng(0).permutation(len(sequences))
    return sequences.take(order), int(sequences.items.max()) + 1, source


def step(variant: str) -> dict:
    import keras
    import numpy as np

    sequences, vocab_size, source = histories()
    keras.utils.set_random_seed(0)
    make = plain if variant.startswith("plain") else library
    model, batches, behaviors = make(variant, sequences, vocab_size)
    # Two small steps first, so that tracing the graph is in neither time nor memory.
    for rows in (1, 2):
        small = keras.tree.map_structure(lambda values, rows=rows: values[:rows], batches[0])
        model.train_on_batch(*small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for inputs, targets in batches:
        start = time.perf_counter()
        loss = float(np.asarray(model.train_on_batch(inputs, targets)))
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "microseconds_a_behavior": 1e6 * statistics.median(seconds[1:]) / behaviors,
        "step_megabytes": (peak - before) / 1e3,
        "process_megabytes": peak / 1e3,
        "loss": loss,
        "behaviors_a_step": behaviors,
        "items": vocab_size - 3,
        "mean_length": float((sequences.lengths - 1).mean()),
        "histories": source,
    }


def library(variant, sequences, vocab_size):
    import keras

    from tfrec_llm.data import next_batches
    from tfrec_llm.models import BehaviorEncoder, NextBehaviorModel

    precision = "mixed_bfloat16" if variant.endswith("bfloat16") else "float32"
    real = int((sequences.lengths - 1).sum() / len(sequences) * USERS_A_STEP)
    batches = next_batches(sequences, max_length=MAX_LENGTH, batch_size=round(real / MAX_LENGTH))
    encoder = BehaviorEncoder(
        vocab_size, EMB_DIM, LAYERS, HEADS, max_length=MAX_LENGTH, dropout=DROPOUT, dtype=precision
    )
    model = NextBehaviorModel(encoder)
    model.compile(keras.optimizers.Adam(1e-3))
    first = [batches[index] for index in range(STEPS)]
    return model, first, int(sum((targets > 0).sum() for _, targets in first) / STEPS)


def plain(variant, sequences, vocab_size):
    import keras
    import numpy as np
    from keras import layers

    inputs = keras.Input((MAX_LENGTH,), dtype="int32")
    table = layers.Embedding(vocab_size, EMB_DIM)
    places = layers.Embedding(MAX_LENGTH, EMB_DIM)
    x = table(inputs) + places(keras.ops.arange(MAX_LENGTH))
    x = layers.Dropout(DROPOUT)(x)
    for _ in range(LAYERS):
        normal = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(HEADS, EMB_DIM // HEADS)
        x = x + layers.Dropout(DROPOUT)(attention(normal, normal, use_causal_mask=True))
        hidden = layers.Dense(4 * EMB_DIM, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dropout(DROPOUT)(layers.Dense(EMB_DIM)(hidden))
    x = layers.LayerNormalization()(x)
    logits = layers.Dense(vocab_size)(x)
    model = keras.Model(inputs, logits)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    )
    padded = np.zeros((USERS_A_STEP * STEPS, MAX_LENGTH + 1), np.int32)
    for row in range(len(padded)):
        padded[row, -len(sequences[row]) :] = sequences[row]
    reads, asks = padded[:, :-1], padded[:, 1:].copy()
    asks[reads == 0] = 0
    batches = list(zip(np.split(reads, STEPS), np.split(asks, STEPS), strict=True))
    return model, batches, int((asks > 0).sum() / STEPS)


def products() -> dict:
    """Returns the rate of this machine's matrix products of the shapes that the step has."""
    import tensorflow as tf

    measured = {}
    for dtype in ("float32", "bfloat16"):
        flops = seconds = 0.0
        shapes = [(1024, 64, 3419), (1024, 3419, 64), (8192, 64, 256), (8192, 256, 64)]
        for rows, inner, columns in shapes:
            a = tf.cast(tf.random.normal((rows, inner)), dtype)
            b = tf.cast(tf.random.normal((inner, columns)), dtype)
            multiply = tf.function(lambda a, b: [tf.matmul(a + i, b) for i in (0, 1, 2, 3)])
            multiply(a, b)
            best = min(timed(multiply, a, b) for _ in range(15))
            flops += 4 * 2 * rows * inner * columns
            seconds += best
        measured[f"gigaflops_{dtype}"] = flops / seconds / 1e9
    return measured


def timed(function, *arguments) -> float:
    start = time.perf_counter()
    for result in function(*arguments):
        result.numpy()
    return time.perf_counter() - start


def where() -> dict:
    """Returns the share of the operations' time in the library's step by what they do."""
    import keras
    import tensorflow as tf

    sequences, vocab_size, _ = histories()
    keras.utils.set_random_seed(0)
    model, batches, _ = library(VARIANTS[-1], sequences, vocab_size)
    model.train_on_batch(*batches[0])
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for batch in batches[1:]:
                model.train_on_batch(*batch)
        seconds = seconds_by_kind(Path(folder))
    return {name: value / sum(seconds.values()) for name, value in seconds.most_common()}


def seconds_by_kind(folder: Path) -> Counter[str]:
    """Returns the seconds of a recording's operations by what they do."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = folder.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    seconds: Counter[str] = Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for line in plane.lines:
            if not line.name.startswith("tf_Compute"):
                continue
            for event in line.events:
                # Operations are "name:type"; others are the threads' own.
                name, _, kind = names[event.metadata_id].rpartition(":")
                if name and not name.endswith(":"):
                    seconds[kind_of(kind)] += event.duration_ps / 1e12
    return seconds


def kind_of(operation: str) -> str:
    for kind, parts in KINDS.items():
        if any(part in operation for part in parts):
            return kind
    return REST


def summary(found: dict) -> dict:
    base, rates = found[VARIANTS[0]], found["products"]
    flops = 6 * (base["items"] * EMB_DIM + LAYERS * (12 * EMB_DIM**2 + MAX_LENGTH * EMB_DIM))
    results = {
        "flops_a_behavior": flops,
        "products": rates,
        "steps": {},
        "where": found["where"],
        "machine": machine(*PACKAGES),
    }
    for name in VARIANTS:
        one = dict(found[name])
        rate = rates["gigaflops_bfloat16" if "bfloat16" in name else "gigaflops_float32"]
        one["gigaflops"] = flops / one["microseconds_a_behavior"] / 1e3
        one["share_of_product_rate"] = one["gigaflops"] / rate
        one["times_faster"] = base["microseconds_a_behavior"] / one["microseconds_a_behavior"]
        one["times_less_step_memory"] = base["step_megabytes"] / one["step_megabytes"]
        results["steps"][name] = one
    return results


def show(results: dict) -> None:
    columns = ("us a behaviour", "faster", "step MB", "less", "process MB", "GFLOP/s", "of limit")
    print(f"{'':22}" + "".join(f"{column:>15}" for column in columns))
    for name, one in results["steps"].items():
        cells = (
            f"{one['microseconds_a_behavior']:.1f}",
            f"{one['times_faster']:.1f}",
            f"{one['step_megabytes']:.0f}",
            f"{one['times_less_step_memory']:.1f}",
            f"{one['process_megabytes']:.0f}",
            f"{one['gigaflops']:.0f}",
            f"{100 * one['share_of_product_rate']:.0f} %",
        )
        print(f"{name:22}" + "".join(f"{cell:>15}" for cell in cells))
    rates = results["products"]
    print(
        f"Matrix products here: {rates['gigaflops_float32']:.0f} GFLOP/s in float32, "
        f"{rates['gigaflops_bfloat16']:.0f} in bfloat16; "
        f"{results['flops_a_behavior'] / 1e6:.2f} MFLOP a behaviour."
    )
    for name, share in results["where"].items():
        print(f"{name}: {100 * share:.0f} %")


OTHERS = {"products": products, "where": where}

if __name__ == "__main__":
    main()
