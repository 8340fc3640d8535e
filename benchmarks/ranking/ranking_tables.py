"""The tables and pictures of docs/ranking_results.md, made of the result files.

    python benchmarks/ranking/ranking_tables.py

What stands between the two marks of the page is replaced; the text around it is written by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, markdown, spread

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PAGE = DOCS / "ranking_results.md"
RESULTS = HERE / "results"
NEW_ITEMS = HERE.parent / "quality" / "results"
DATA = ("completejourney", "ml-100k")
METRICS = {
    "auc": "AUC",
    "grouped_auc": "grouped AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
DRAWN = (
    "logistic on counts",
    "boosting on counts",
    "ranking from scratch",
    "ranking, pre-trained",
    "ranking with counts, from scratch",
    "ranking with counts, pre-trained",
)


def main() -> None:
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    for data in DATA:
        path = RESULTS / f"{data}.json"
        if path.exists() and several_shares(result := json.loads(path.read_text())):
            draw(result, DOCS / "images" / f"ranking_{data}.png")


def renewed(page: str, results: Path) -> str:
    """Returns the page with the tables of the result files."""
    parts = []
    for data in DATA:
        path = results / f"{data}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text())))
    path = results / "neumf.json"
    if path.exists():
        parts.append(
            f"## Among 99 items that were not taken\n\n{neumf(json.loads(path.read_text()))}"
        )
    found = [json.loads(path.read_text()) for path in sorted(NEW_ITEMS.glob("new_items_*.json"))]
    if found:
        parts.append(f"## New items, by their features alone\n\n{new_items(found)}")
    return between_marks(page, "\n" + "".join(f"{part}\n\n" for part in parts))


def section(result: dict[str, Any]) -> str:
    """Returns heading, table and picture of a data set."""
    counts, settings = result["counts"], result["settings"]
    said = ", ".join(
        f"{part['impressions']:,} {name} ({part['positive']:,} positive)"
        for name, part in counts.items()
    )
    seeds = max(row["seeds"] for row in result["summary"])
    lines = [
        f"## {result['data']}",
        "",
        f"Impressions: {said}. {seeds} seed{'s' if seeds > 1 else ''}; vectors of "
        f"{settings['emb_dim']}, histories of {settings['max_length']}, "
        f"{settings['pre_training']} epochs of pre-training.",
        "",
        table(result),
    ]
    if several_shares(result):
        picture = f"images/ranking_{result['data']}.png"
        lines += ["", f"![AUC over the share of the labels]({picture})"]
    return "\n".join(lines)


def several_shares(result: dict[str, Any]) -> bool:
    return len({row["share"] for row in result["summary"]}) > 1


def table(result: dict[str, Any]) -> str:
    """Returns a row for every share of the labels and model."""
    rows = [["labels", "model", *METRICS.values()]]
    for row in result["summary"]:
        cells = [spread(row[name], row[f"{name}_deviation"]) for name in METRICS]
        rows.append([f"{row['share']:.0%}", row["model"], *cells])
    return markdown(rows)


def neumf(result: dict[str, Any]) -> str:
    """Returns the table of NeuMF and the dot product."""
    published = result["published"]
    rows = [["model", "HR@10", "NDCG@10", "best epoch", "seed"]]
    for run in result["runs"]:
        found = [spread(run["test"][name]) for name in ("hr@10", "ndcg@10")]
        rows.append([run["model"], *found, str(run["best_epoch"]), str(run["seed"])])
    known = [spread(published["neumf"][name]) for name in ("hr@10", "ndcg@10")]
    rows.append([f"neumf, published ({published['source']})", *known, "", ""])
    return markdown(rows)


def new_items(results: list[dict[str, Any]]) -> str:
    """Returns a row for every data set, seed and way to rank withheld items."""
    rows = [["data", "new items", "users", "ranked by", "HR@10", "NDCG@10", "seed"]]
    for result in results:
        for seed, run in result["seeds"].items():
            counts = [f"{run['items']['withheld']:,}", f"{run['users']:,}"]
            for name, found in run["test"].items():
                cells = [spread(found[metric]) for metric in ("hr@10", "ndcg@10")]
                rows.append([result["data"], *counts, name, *cells, seed])
    return markdown(rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws AUC over the share of the labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name in DRAWN:
        rows = [row for row in result["summary"] if row["model"] == name]
        shares = [100 * row["share"] for row in rows]
        deviations = [row["auc_deviation"] or 0.0 for row in rows]
        axes.errorbar(shares, [row["auc"] for row in rows], deviations, marker="o", label=name)
    axes.set(xscale="log", xlabel="labels, % of the training impressions", ylabel="AUC on test")
    axes.set_title(result["data"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
