"""A search on the clicks of a clothing shop, beside the setting of `tfrec-llm demo`.

    python benchmarks/tuning/eshop.py [--trials 10] [--epochs 10]

The first trial is the demo's setting, so short trainings are compared with short ones. Then the
demo's setting and the best one are trained to the end and tested, one seed. A search that was
killed goes on. Writes results/eshop.json, the picture docs/images/tuning.png and the table of
docs/tuning.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, machine, markdown, number, write

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PAGE, RESULT, PICTURE = DOCS / "tuning.md", HERE / "results" / "eshop.json", "images/tuning.png"
SIZES = {"emb_dim": 64, "num_layers": 2, "num_heads": 2, "max_length": 50}
PACKAGES = ("tfrec-llm", "tensorflow", "keras", "keras-tuner", "numpy")


def space(hp: Any) -> dict[str, Any]:
    """Returns what is searched; its defaults are the demo's setting."""
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
    import tfrec_llm as tr

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10, help="of a trial")
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "build" / "tuning")
    arguments = parser.parse_args()
    split = tr.data.leave_last_out(tr.data.load("eshop"))
    tuner = tr.tuning.RecommenderTuner(
        space,
        method="random",
        max_trials=arguments.trials,
        epochs=arguments.epochs,
        fixed=SIZES,
        directory=arguments.folder,
        project_name="eshop",
    )
    # People look at the same thing twice, so nothing leaves the ranking.
    fitting = {"validation": split.valid, "filter_seen": False, "verbose": 2}
    begin = time.perf_counter()
    tuner.search(split.train, **fitting)
    searched = time.perf_counter() - begin
    trials = tuner.results
    (DOCS / PICTURE).parent.mkdir(exist_ok=True)
    trials.plot(DOCS / PICTURE)
    table = json.loads(trials.table.to_json(orient="records"))
    settings = {"demo": SIZES | {"dropout": 0.3, "batch_size": 64}, "best": trials.best_setting}
    result = {
        "machine": machine(*PACKAGES),
        "trials": table,
        "epochs_a_trial": arguments.epochs,
        "seconds_of_this_call": searched,
        "seconds_of_trials": sum(row["seconds"] or 0.0 for row in table),
        "settings": settings,
        "trained": {},
    }
    for name, setting in settings.items():
        rec = tr.Recommender.from_config(setting)
        rec.fit(split.train, epochs=100, patience=6, **fitting)
        report = rec.evaluate(split.test, filter_seen=False, metrics=("hr", "ndcg"), k=10)
        result["trained"][name] = {
            "epochs": len(rec.curve),
            "seconds": sum(row["seconds"] for row in rec.curve),
            "validation": max(row["val_ndcg@10"] for row in rec.curve),
            "test": dict(report),
        }
        write(RESULT, result)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), RESULT), encoding="utf-8")


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
    ended = [["trained to the end", "epochs", "validation NDCG@10", "test HR@10", "test NDCG@10"]]
    names = {"demo": "setting of `tfrec-llm demo`", "best": "best trial's"}
    for name, one in result["trained"].items():
        test = one["test"]
        ended.append(
            [
                names[name],
                str(one["epochs"]),
                number(one["validation"]),
                number(test["hr@10"]),
                number(test["ndcg@10"]),
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


_BESIDE = {"trial", "status", "score", "epochs", "seconds"}

if __name__ == "__main__":
    main()
