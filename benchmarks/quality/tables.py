"""The tables of docs/results.md and of the READMEs, of the result files and published figures.

    python benchmarks/quality/tables.py

What stands between the two marks of a page is replaced; the text around it is written by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, markdown, number, spread
from settings import DATA

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "results.md"
READMES = {
    HERE.parents[1] / "README.md": ["best published", "here", "here, all models and rules blended"],
    HERE.parents[1] / "README.zh-CN.md": ["已发表的最好结果", "本库", "本库全部模型与序列规则混合"],
}
METRICS = ["hr@10", "ndcg@10"]
PUBLISHED = json.loads((HERE / "published.json").read_text())


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(renewed(page, HERE / "results"), encoding="utf-8")
    for path, heading in READMES.items():
        readme = path.read_text(encoding="utf-8")
        path.write_text(between_marks(readme, beside_published(heading, HERE / "results")), "utf-8")


def renewed(page: str, results: Path) -> str:
    """Returns the page with the tables that the result files give."""
    return between_marks(page, tables(results))


def tables(results: Path) -> str:
    """Returns the Markdown of all data sets that were measured or published."""
    parts = []
    for data in DATA:
        found = [
            json.loads(path.read_text())
            for objective in ("next", "masked")
            if (path := results / f"{data}_{objective}.json").exists()
        ]
        if data != "simulated" and (found or any(row["data"] == data for row in PUBLISHED["rows"])):
            table = quality(data, found, blend_of_all(data, results))
            parts.append(f"\n## {data}\n\n{heading(data, found)}\n\n{table}\n")
            if found:
                parts.append(f"\n{trainings(found)}\n")
    return "".join(parts) + "\n"


def beside_published(heading: list[str], results: Path) -> str:
    """Returns the next-behaviour models beside the best published figures under F."""
    rows = [["HR@10 / NDCG@10", *heading]]
    for data in DATA:
        path = results / f"{data}_next.json"
        # Figures chosen on test are no measure.
        others = [
            row
            for row in PUBLISHED["rows"]
            if row["data"] == data and "F" in row and row.get("note") != "chosen on test"
        ]
        if not path.exists() or not others:
            continue
        result = json.loads(path.read_text())
        best = max(others, key=lambda row: row["F"][1])
        model = {metric: one["mean"] for metric, one in result["summary"]["F"]["model"].items()}
        everything = blend_of_all(data, results)
        blended = everything["F"]["test"] if everything else {}
        cells = [
            " / ".join(number(reached[metric]) for metric in METRICS) if reached else ""
            for reached in (dict(zip(METRICS, best["F"], strict=True)), model, blended)
        ]
        rows.append([data, f"{cells[0]}, {linked(best['model'], best)}", *cells[1:]])
    return f"\n{markdown(rows)}\n\n"


def blend_of_all(data: str, results: Path) -> dict[str, Any] | None:
    """Returns what `blend.py` wrote of a data set, None where it did not run."""
    path = results / f"{data}_all.json"
    return json.loads(path.read_text()) if path.exists() else None


def show(data: str, results: list[dict[str, Any]]) -> str:
    """Returns one data set's table, to print."""
    return f"{heading(data, results)}\n\n{quality(data, results)}"


def heading(data: str, results: list[dict[str, Any]]) -> str:
    protocols = DATA[data]["protocols"]
    chosen = f"Epochs are chosen under {protocols[0]}."
    if len(protocols) > 1:
        chosen = "Each protocol chooses its own epoch."
    if not results:
        return f"Held out: {DATA[data]['split']}. {chosen}"
    counts = results[0]["counts"]
    return (
        f"{counts['train_behaviors']:,} behaviours to train on, {counts['train_items']:,} items, "
        f"{counts['test_users']:,} users to test with. Held out: {DATA[data]['split']}. {chosen}"
    )


def quality(data: str, results: list[dict[str, Any]], blended: dict[str, Any] | None = None) -> str:
    """Returns what floors, models, their blend and published models reach."""
    metrics = METRICS + (["recall@10"] if data == "online_retail" else [])
    columns = [(protocol, metric) for protocol in "FU" for metric in metrics]
    rows = [["", *(f"{metric.upper()} {protocol}" for protocol, metric in columns), "from"]]
    if results:
        for name, by_protocol in results[0]["floors"].items():
            cells = [number(by_protocol[p]["test"][metric]) for p, metric in columns]
            rows.append([name, *cells, "counting"])
    for result in results:
        rows += measured_rows(result, columns)
    if blended:
        models = " + ".join(f"{o} of {len(seeds)}" for o, seeds in blended["seeds"].items())
        cells = [number(blended[p]["test"][metric]) for p, metric in columns]
        rows.append([f"**{models} seeds** + sequential rules", *cells, "measured, blended"])
    for row in PUBLISHED["rows"]:
        if row["data"] == data:
            reached = {p: dict(zip(METRICS, row[p], strict=True)) for p in "FU" if p in row}
            cells = [number(reached.get(p, {}).get(metric)) for p, metric in columns]
            rows.append([row["model"], *cells, published(row)])
    return markdown(rows)


def measured_rows(result: dict[str, Any], columns: list[tuple[str, str]]) -> list[list[str]]:
    model = f"**{result['objective']} behaviour**"
    number_of_seeds = len(result["seeds"])
    seeds = "1 seed" if number_of_seeds == 1 else f"mean of {number_of_seeds} seeds"
    rows = []
    for name, shown in shown_names(model, result["summary"]["U"]).items():
        found = [result["summary"][p].get(name, {}).get(metric) for p, metric in columns]
        cells = [spread(one["mean"], one["standard_deviation"]) if one else "" for one in found]
        rows.append([shown, *cells, f"measured, {seeds}"])
    together = result.get("all_seeds")
    if together:
        model += f" of {len(together['seeds'])} seeds"
        for name, shown in shown_names(model, together["U"]).items():
            cells = [number(together[p][name]["test"][metric]) for p, metric in columns]
            rows.append([shown, *cells, "measured, blended"])
    return rows


def shown_names(model: str, measured: dict[str, Any]) -> dict[str, str]:
    """Returns what a table calls that which was measured under a protocol, in its order."""
    names = {
        "model": model,
        "repeats weighed": f"{model}, repeats weighed",
        "with rules": f"{model} + sequential rules",
    }
    return {name: shown for name, shown in names.items() if name in measured}


def trainings(results: list[dict[str, Any]]) -> str:
    """Returns how long the trainings took, on what."""
    rows = [["", "best epoch", "minutes to it", "minutes in all", "s an evaluation", "on"]]
    for result in results:
        protocol = DATA[result["data"]]["protocols"][0]
        for seed, one in result["seeds"].items():
            seconds, machine = one["seconds"], one["machine"]
            backend = machine["backend"]
            cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
            rows.append(
                [
                    f"{result['objective']} behaviour, seed {seed}",
                    f"{one[protocol]['model']['best_epoch'] + 1} of {one['epochs']}",
                    f"{seconds['training_to_best_epoch'] / 60:.1f}",
                    f"{seconds['training'] / 60:.1f}",
                    f"{seconds['one_evaluation']:.1f}",
                    f"{machine['processor']}, {cores}, {backend} {machine[backend]}, "
                    f"Keras {machine['keras']}",
                ]
            )
    return markdown(rows)


def published(row: dict[str, Any]) -> str:
    return f"published, {linked(row['source'], row)}" + (
        f", {row['note']}" if "note" in row else ""
    )


def linked(text: str, row: dict[str, Any]) -> str:
    """Returns a text that leads to the row's source, where that has an address."""
    link = PUBLISHED["sources"].get(row["source"])
    return f"[{text}]({link})" if link else text


if __name__ == "__main__":
    main()
