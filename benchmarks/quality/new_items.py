"""Recommends items that were withheld from training, through their features alone.

    TFREC_DATA=... python benchmarks/quality/new_items.py ml-1m [--seeds 0 1 2]

A tenth of the items are withheld, half of them to choose the epoch, half for the test. Of a user
who took some, the last one is the target; what the user did before is read, the rest is left out,
and so is every behaviour of a withheld item. Only the withheld items of the same half are ranked.
The floor ranks them by how alike their words are to those of the user's last items (cosine of
TF-IDF vectors); the number of items that is best on test is taken, which favours the floor.
Replaces results/new_items_DATA.json after every seed.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
import numpy as np
from reporting import machine, write
from short_lists import BestEpoch, figures, ranks_of
from splits import split_of

from tfrec_llm import Recommender
from tfrec_llm.data import BehaviorLog, UserSequences, Vocabulary, load

HERE = Path(__file__).parent
DATA: dict[str, dict[str, Any]] = {
    "ml-1m": {"features": ["title", "genres"], "max_length": 100},
    "online_retail": {"features": ["title", "price"], "max_length": 100},
}
RECOMMENDER = {
    "emb_dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.2,
    "new_items": True,
    "feature_options": {"id_dropout": 0.5},
}
EPOCHS, PATIENCE = 60, 6
LAST = (1, 3, 10, 30, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="most epochs")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    fit = {"epochs": arguments.epochs, "patience": PATIENCE}
    setting = DATA[arguments.data] | {"recommender": RECOMMENDER, "fit": fit}
    result: dict[str, Any] = {"data": arguments.data, "setting": setting, "seeds": {}}
    for seed in arguments.seeds:
        result["seeds"][str(seed)] = measured(arguments.data, seed, arguments.epochs)
        result["machine"] = machine("tfrec-llm", "keras", "tensorflow", "scikit-learn")
        write(arguments.results / f"new_items_{arguments.data}.json", result)
        print(json.dumps(result["seeds"][str(seed)], indent=1), flush=True)


def measured(data: str, seed: int, epochs: int) -> dict[str, Any]:
    """Trains with one draw of withheld items and returns the figures of its test half."""
    setting = DATA[data]
    log = purchases_or_all(data)
    train, parts = withheld(log, seed)
    rec = Recommender(
        "next",
        item_features=setting["features"],
        max_length=setting["max_length"],
        seed=seed,
        **RECOMMENDER,
    )
    chosen = BestEpoch(
        lambda: figures(new_item_ranks(rec, parts["valid"])), lambda: rec.model, PATIENCE
    )
    begin = time.perf_counter()
    rec.fit(train, epochs=epochs, callbacks=[chosen], verbose=2)
    seconds = time.perf_counter() - begin
    test = parts["test"]
    found = {"features": figures(new_item_ranks(rec, test))}
    floors = {n: figures(content_ranks(log, test, setting["features"], n)) for n in LAST}
    best = max(floors, key=lambda n: floors[n]["ndcg@10"])
    count = len(test.items)
    return {
        "items": {"training": len(Vocabulary.fit(train.item)), "withheld": count},
        "users": len(test.targets),
        "epoch": chosen.epoch + 1,
        "seconds": round(seconds, 1),
        "test": {
            **found,
            f"content of the last {best}": floors[best],
            "chance": {"hr@10": min(1.0, 10 / count), "ndcg@10": chance_ndcg(count)},
        },
    }


class NewItemTask:
    """Users whose target is a withheld item, and what they did before.

    Attributes:
        items: Raw ids of the items that are ranked.
        targets: The place of each user's target in them, int `[users]`.
        histories: Raw ids of what each user did before, oldest first.
    """

    def __init__(self, items: list[Any], targets: np.ndarray, histories: list[list[Any]]):
        self.items, self.targets, self.histories = items, targets, histories


def purchases_or_all(data: str) -> BehaviorLog:
    """Returns the behaviours that are learned from, all of them in one log."""
    if data == "online_retail":
        split = split_of(data)
        return split.train.concat(split.valid).concat(split.test)
    return load(data)


def withheld(log: BehaviorLog, seed: int) -> tuple[BehaviorLog, dict[str, NewItemTask]]:
    """Returns what is trained on, and the tasks of both halves."""
    vocabulary = Vocabulary.fit(log.item)
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(vocabulary.ids.to_pylist())[: len(vocabulary) // 10]
    halves = {"valid": set(drawn[::2]), "test": set(drawn[1::2])}
    new = halves["valid"] | halves["test"]
    codes, order = log.user_codes()[0], log.order()
    ids = np.array(log.item.to_pylist(), dtype=object)
    by_user: dict[int, list[int]] = {}
    for row in order:
        by_user.setdefault(int(codes[row]), []).append(int(row))
    kept: list[int] = []
    found: dict[str, list[tuple[Any, list[Any]]]] = {name: [] for name in halves}
    for rows in by_user.values():
        places = [place for place, row in enumerate(rows) if ids[row] in new]
        # The user's last new item is the target; who has nothing before it has no task.
        end = places[-1] if places else len(rows)
        old = [row for row in rows[:end] if ids[row] not in new]
        kept.extend(old)
        if places and old:
            target = ids[rows[end]]
            half = "valid" if target in halves["valid"] else "test"
            found[half].append((target, list(ids[old])))
    tasks = {}
    for name, pairs in found.items():
        items = sorted(halves[name])
        place = {item: number for number, item in enumerate(items)}
        targets = np.array([place[target] for target, _ in pairs])
        tasks[name] = NewItemTask(items, targets, [history for _, history in pairs])
    return log.take(np.sort(np.array(kept))), tasks


def new_item_ranks(rec: Recommender, task: NewItemTask) -> np.ndarray:
    """Returns the place of every user's target among the new items, from 0."""
    columns = rec.vocabulary.encode(task.items)
    ranks = []
    for start in range(0, len(task.histories), 512):
        sequences = UserSequences.from_histories(
            task.histories[start : start + 512], rec.vocabulary, on_unknown="ignore"
        )
        ranks.append(ranks_of(rec.score(sequences)[:, columns], task.targets[start : start + 512]))
    return np.concatenate(ranks)


def content_ranks(log: BehaviorLog, task: NewItemTask, features: list[str], last: int) -> Any:
    """Returns the same for the likeness to the words of the last items."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    assert log.catalogue is not None
    ids = Vocabulary.fit(log.item).ids.to_pylist()
    described = log.catalogue.lookup(ids)
    columns = [described.column(name).to_pylist() for name in features]
    texts = [" ".join(words(value) for value in values) for values in zip(*columns, strict=True)]
    vectors = TfidfVectorizer(token_pattern=r"\S+").fit_transform(texts)
    row = {item: number for number, item in enumerate(ids)}
    new = vectors[[row[item] for item in task.items]]
    read = [vectors[[row[item] for item in h[-last:]]].mean(axis=0) for h in task.histories]
    scores = np.asarray(np.vstack(read) @ new.T)
    return ranks_of(scores, task.targets)


def words(value: Any) -> str:
    """Returns the words of a text or of tags; a number tells a floor of words nothing."""
    if isinstance(value, str):
        return value
    return " ".join(f"tag:{tag}" for tag in value) if isinstance(value, list) else ""


def chance_ndcg(count: int) -> float:
    """Returns the NDCG@10 of a random order."""
    places = np.arange(min(10, count))
    return round(float((1 / np.log2(places + 2)).sum() / count), 4)


if __name__ == "__main__":
    main()
