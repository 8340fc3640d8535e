"""Collaborative filtering on ml-1m by the protocol of its paper: NeuMF and a dot product.

    TFREC_DATA=... python benchmarks/ranking/neumf.py [--models neumf product] [--seeds 0]

Each user's last item is the target, the one before is validation, which chooses the epoch. Then a
model is trained anew on both parts for as many epochs, as the paper's training part holds all but
the target. It is ranked among 99 items that the user never took, drawn once. HR@10 and NDCG@10 on
this short list are far higher than over the catalogue and compare with the paper only. Replaces
results/neumf.json after every run.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
import keras
import numpy as np
from reporting import machine, write
from short_lists import BestEpoch, figures, ranks_of

from tfrec_llm.data import (
    BehaviorLog,
    PairBatches,
    ShopSimulator,
    Split,
    Vocabulary,
    leave_last_out,
    load,
)
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.models import MatrixFactorization, NeuralCollaborativeFiltering

HERE = Path(__file__).parent
MODELS: dict[str, dict[str, Any]] = {
    "neumf": {"emb_dim": 32, "hid_dims": [128, 64, 32], "learning_rate": 1e-3, "epochs": 20},
    "product": {"emb_dim": 128, "l2": 0.005, "learning_rate": 2e-3, "epochs": 40},
}
BATCH = {"negatives": 4, "batch_size": 1024}
PATIENCE = 3
NEGATIVES = 99
PUBLISHED = {
    "neumf": {"hr@10": 0.701, "ndcg@10": 0.425},
    "source": "He et al. 2017, table 2, 32 factors, not pre-trained; their split and draw",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["ml-1m", "simulated"], default="ml-1m")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="instead of the settings'")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    simulated = arguments.data == "simulated"
    log = ShopSimulator(60, 300).simulate() if simulated else load(arguments.data)
    split = leave_last_out(log)
    users, items = Vocabulary.fit(log.user), Vocabulary.fit(log.item)
    result: dict[str, Any] = {
        "data": arguments.data,
        "settings": MODELS | {"batches": BATCH, "patience": PATIENCE},
        "published": PUBLISHED,
        "machine": machine("tfrec-llm", "keras", "tensorflow"),
        "runs": [],
    }
    for seed in arguments.seeds:
        lists = [
            short_lists(part, log, users, items, seed=number)
            for number, part in enumerate((split.valid, split.test))
        ]
        for name in arguments.models:
            run = trained(name, split, users, items, lists, seed, arguments.epochs)
            result["runs"].append({"model": name, "seed": seed, **run})
            print(result["runs"][-1], flush=True)
            write(arguments.results / "neumf.json", result)


def trained(
    name: str,
    split: Split,
    users: Vocabulary,
    items: Vocabulary,
    lists: list[tuple[np.ndarray, np.ndarray]],
    seed: int,
    epochs: int | None,
) -> dict[str, Any]:
    """Trains a model to its best epoch on validation, and anew with validation to the same one."""
    options = dict(MODELS[name])
    rate, most = options.pop("learning_rate"), options.pop("epochs")
    kind = NeuralCollaborativeFiltering if name == "neumf" else MatrixFactorization

    def fit(log: BehaviorLog, epochs: int, *callbacks: keras.callbacks.Callback) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = kind(users.size, items.size, **options)
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
        batches = PairBatches(log, users, items, seed=seed, **BATCH)
        model.fit(batches, epochs=epochs, callbacks=list(callbacks), verbose=2)
        return model

    begin = time.perf_counter()
    chosen = BestEpoch(lambda: judged(chosen.model, lists[0]), lambda: chosen.model, PATIENCE)
    of_train = fit(split.train, epochs or most, chosen)
    of_both = fit(split.train.concat(split.valid), chosen.epoch + 1)
    return {
        "best_epoch": chosen.epoch + 1,
        "seconds": round(time.perf_counter() - begin, 1),
        "validation": chosen.figures,
        "test_of_train_alone": judged(of_train, lists[1]),
        "test": judged(of_both, lists[1]),
    }


def short_lists(
    part: BehaviorLog, log: BehaviorLog, users: Vocabulary, items: Vocabulary, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns users `[n]` and lists of items `[n, 1 + negatives]`, the target first."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((users.size, items.size), bool)
    taken[users.encode(log.user), items.encode(log.item)] = True
    taken[:, :NUM_RESERVED] = True
    asked = users.encode(part.user)
    # The smallest of random numbers over what was not taken: a draw without repeats.
    keys = rng.random((len(asked), items.size))
    keys[taken[asked]] = 2.0
    drawn = np.argpartition(keys, NEGATIVES, axis=1)[:, :NEGATIVES]
    return asked, np.column_stack([items.encode(part.item), drawn])


def judged(model: keras.Model, lists: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Returns HR@10 and NDCG@10 of the targets."""
    users, items = lists
    pairs = np.repeat(users, items.shape[1]), items.ravel()
    scores = model.predict(pairs, batch_size=1 << 16, verbose=0).reshape(items.shape)
    return figures(ranks_of(scores, np.zeros(len(items), np.int64)))


if __name__ == "__main__":
    main()
