"""A search on the clicks of a clothing shop, beside a plain setting.

    python benchmarks/tuning/eshop.py [--trials 10] [--epochs 10] [--seeds 0 1 2]

The first trial is the plain setting, so short trainings are compared with short ones. Then the
plain setting and the best one are trained to the end and tested, with several seeds. A search that
was killed goes on, and one that the result file holds is not repeated; so are trainings. Writes
results/eshop.json, the picture docs/images/tuning.png and the tables of docs/tuning.md.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, number, spread, write

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PAGE, RESULT, PICTURE = DOCS / "tuning.md", HERE / "results" / "eshop.json", "images/tuning.png"
SIZES = {"emb_dim": 64, "num_layers": 2, "num_heads": 2, "max_length": 50}
PACKAGES = ("tfrec-llm", "tensorflow", "keras", "keras-tuner", "numpy")


def space(hp: Any) -> dict[str, Any]:
    """Returns what is searched; its defaults are the plain setting."""
    chosen = {
        "dropout": hp.Float("dropout", 0.1, 0.5, step=0.1, default=0.3),
        "attention_dropout": hp.Choice("attention_dropout", [0.0, 0.3], default=0.0),
        "block": hp.Choice("block", ["pre_norm", "post_norm", "gated"], default="pre_norm"),
        "position_encoding": hp.Choice(
            "position_encoding", ["learned", "rotary"], default="learned"
        ),
        "filter_share": hp.Choice("filter_share", [0.0, 0.5, 0.7], default=0.0),
        "weight_averaging": hp.Choice("weight_averaging", [0.0, 0.7], default=0.0),
        "learning_rate": hp.Float("learning_rate", 5e-4, 3e-3, sampling="log", default=1e-3),
        "batch_size": hp.Choice("batch_size", [16, 32, 64], default=64),
        "similarity": hp.Choice("similarity", ["dot", "cosine"], default="dot"),
    }
    return chosen | ({"temperature": 0.07} if chosen["similarity"] == "cosine" else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10, help="of a trial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "build" / "tuning")
    parser.add_argument("--fresh", action="store_true", help="search and train anew")
    arguments = parser.parse_args()

    import tfrec_llm as tr

    split = tr.data.leave_last_out(tr.data.load("eshop"))
    # People look at the same thing twice, so nothing leaves the ranking.
    fitting = {"validation": split.valid, "filter_seen": False, "verbose": 2}
    if RESULT.exists() and not arguments.fresh:
        result = json.loads(RESULT.read_text())
    else:
        result = search(split.train, fitting, arguments)
        write(RESULT, result)
    for seed in map(str, arguments.seeds):
        for name, setting in result["settings"].items():
            trained = result["trained"].setdefault(name, {})
            if seed in trained:
                continue
            rec = tr.Recommender.from_config(setting | {"seed": int(seed)})
            rec.fit(split.train, epochs=100, patience=6, **fitting)
            report = rec.evaluate(split.test, filter_seen=False, metrics=("hr", "ndcg"), k=10)
            trained[seed] = {
                "epochs": len(rec.curve),
                "seconds": sum(row["seconds"] for row in rec.curve),
                "validation": max(row["val_ndcg@10"] for row in rec.curve),
                "test": dict(report),
                "machine": machine(*PACKAGES),
            }
            write(RESULT, result)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), RESULT), encoding="utf-8")


def search(train: Any, fitting: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the trials of a search, which is drawn, too, and the two settings to train."""
    import tfrec_llm as tr

    tuner = tr.tuning.RecommenderTuner(
        space,
        method="random",
        max_trials=arguments.trials,
        epochs=arguments.epochs,
        fixed=SIZES,
        directory=arguments.folder,
        project_name="eshop",
        overwrite=arguments.fresh,
    )
    begin = time.perf_counter()
    tuner.search(train, **fitting)
    searched = time.perf_counter() - begin
    trials = tuner.results
    (DOCS / PICTURE).parent.mkdir(exist_ok=True)
    trials.plot(DOCS / PICTURE)
    table = json.loads(trials.table.to_json(orient="records"))
    return {
        "machine": machine(*PACKAGES),
        "trials": table,
        "epochs_a_trial": arguments.epochs,
        "seconds_of_this_call": searched,
        "seconds_of_trials": sum(row["seconds"] or 0.0 for row in table),
        "settings": {
            "plain": SIZES | {"dropout": 0.3, "batch_size": 64},
            "best": trials.best_setting,
        },
        "trained": {},
    }


def renewed(page: str, path: Path) -> str:
    """Returns the page with the tables that the result file gives."""
    if not path.exists():
        return between_marks(page, "\nNo result file yet.\n\n")
    result = json.loads(path.read_text())
    chosen = [name for name in result["trials"][0] if name not in _BESIDE]
    rows = [["NDCG@10", "epochs", "s", *chosen]]
    for row in result["trials"]:
        values = [row[name] for name in chosen]
        rows.append(
            [
                number(row["score"]),
                f"{row['epochs']:.0f}",
                f"{row['seconds']:.0f}",
                *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values),
            ]
        )
    ended = [
        ["trained to the end", "seeds", "epochs", "s", "validation NDCG@10", "test HR@10",
         "test NDCG@10"]
    ]  # fmt: skip
    names = {"plain": "plain setting", "best": "best trial's"}
    for name, trained in result["trained"].items():
        runs = list(trained.values())
        ended.append(
            [
                names[name],
                str(len(runs)),
                *(f"{statistics.mean(run[what] for run in runs):.0f}" for what in _SPENT),
                mean_of([run["validation"] for run in runs]),
                *(mean_of([run["test"][metric] for run in runs]) for metric in _TESTED),
            ]
        )
    machine = result["machine"]
    minutes = result["seconds_of_trials"] / 60
    return between_marks(
        page,
        f"\n{len(result['trials'])} trials of at most {result['epochs_a_trial']} epochs, "
        f"{minutes:.0f} minutes on {machine['cores']} cores of {machine['processor']}, which other "
        f"work shared:\n\n{markdown(rows)}\n\n![]({PICTURE})\n\n{markdown(ended)}\n\n",
    )


def mean_of(values: list[float]) -> str:
    """Returns the mean and, of several, the standard deviation."""
    return spread(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


_BESIDE = {"trial", "status", "score", "epochs", "seconds"}
_SPENT = ("epochs", "seconds")
_TESTED = ("hr@10", "ndcg@10")

if __name__ == "__main__":
    main()
