"""What each option of training brings: behaviours a second, memory, validation NDCG@10.

    python benchmarks/speed/training_options.py [--epochs 6]

Every option is set by itself beside the plain setting, in a process of its own, on the clicks of
eshop; one seed. Writes results/training_options.json beside this script; `speed_tables.py` makes
the table of docs/speed.md of it.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from reporting import in_new_process, machine, write

RESULT = Path(__file__).parent / "results" / "training_options.json"
PLAIN = {
    "emb_dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "max_length": 50,
    "dropout": 0.3,
    "batch_size": 64,
    "precision": "float32",
}
OPTIONS: dict[str, dict] = {
    "plain, float32": {},
    "precision mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "jit_compile": {"jit_compile": True},
    "steps_per_execution 8": {"steps_per_execution": 8},
    "jit_compile, steps_per_execution 8": {"jit_compile": True, "steps_per_execution": 8},
    "gradient_accumulation 4, of 16 rows": {"gradient_accumulation": 4, "batch_size": 16},
    "weight_averaging 0.7": {"weight_averaging": 0.7},
    "schedule cosine": {"schedule": "cosine"},
    "schedule cosine, warmup 0.1": {"schedule": "cosine", "warmup": 0.1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--option", choices=list(OPTIONS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.option:
        print(json.dumps(trained(arguments.option, arguments.epochs)))
        return
    result = {
        "machine": machine("tfrec-llm", "tensorflow", "keras", "numpy"),
        "epochs": arguments.epochs,
        "options": {
            name: in_new_process(__file__, "--option", name, "--epochs", arguments.epochs)
            for name in OPTIONS
        },
    }
    write(RESULT, result)
    print(json.dumps(result["options"], indent=1))


def trained(name: str, epochs: int) -> dict:
    import tfrec_llm as tr

    split = tr.data.leave_last_out(tr.data.load("eshop"))
    rec = tr.Recommender(**PLAIN | OPTIONS[name])
    rec.fit(split.train, validation=split.valid, epochs=epochs, filter_seen=False, verbose=0)
    # The first epoch traces and compiles.
    return {
        "behaviors_per_second": statistics.median(
            row["behaviors_per_second"] for row in rec.curve[1:]
        ),
        "first_epoch_seconds": rec.curve[0]["seconds"],
        "memory_gb": rec.curve[-1]["memory_gb"],
        "validation": max(row["val_ndcg@10"] for row in rec.curve),
    }


if __name__ == "__main__":
    main()
