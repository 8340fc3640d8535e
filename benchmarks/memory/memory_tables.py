"""The tables of large catalogues and of smaller item tables, made of the result files.

    python benchmarks/memory/memory_tables.py

What stands between the marks of the two pages is replaced; the text around it is written by hand.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from large_catalogue import step_ratio
from reporting import between_marks, markdown, number

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"


def main() -> None:
    for name, (page, _) in TABLES.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(renewed(name, text), encoding="utf-8")


def renewed(name: str, page: str) -> str:
    """Returns the page of a result file with the tables that the file gives."""
    result = json.loads((HERE / "results" / f"{name}.json").read_text())
    return between_marks(page, f"\n{TABLES[name][1](result)}\n\n", name)


def of_catalogues(result: dict[str, Any]) -> str:
    """Returns what millions of items take in time and memory."""
    data, train, largest = (result[part] for part in ("data", "train", "largest"))
    many = f"{data['items']:,} items"
    rows = [["", "s", "GB"]]

    def add(what: str, seconds: float, found: dict[str, Any]) -> None:
        rows.append([what, f"{seconds:,.1f}", f"{found['peak_gigabytes']:.1f}"])

    read = sum(data["seconds"].values()) - data["seconds"]["import"]
    add(f"{data['behaviors']:,} behaviours of {many}, from Parquet to batches", read, data)
    add("`Recommender.fit` of them, one epoch", train["seconds"]["fit an epoch"], train)
    for part, users in (("evaluate", "evaluate 1,000"), ("recommend", "recommend to 1,000")):
        blocks = result[part]["blocks"]
        add(f"{users} users over {many}", blocks["seconds"], blocks)
    seconds = largest["seconds"]
    add(f"{largest['items']:,} items: make the model", seconds["make the model"], largest)
    add("the same: recommend to 100 users", seconds["recommend to 100 users"], largest)

    steps = result["steps"]
    optimizers, sizes = (dict.fromkeys(kind.split(", ")[part] for kind in steps) for part in (0, 1))
    names = [f"ms a step, {int(size.split()[0]):,} items" for size in sizes]
    of_steps = [["", *names, "times", "GB"]]
    for optimizer in optimizers:
        found = [steps[f"{optimizer}, {size}"] for size in sizes]
        of_steps.append(
            [
                f'`optimizer="{optimizer}"`',
                *(f"{one['milliseconds']:.0f}" for one in found),
                f"{step_ratio(result, optimizer):.2f}",
                f"{found[-1]['peak_gigabytes']:.1f}",
            ]
        )
    return f"{on(result)}\n\n{markdown(rows)}\n\n{markdown(of_steps)}"


def of_smaller_tables(result: dict[str, Any]) -> str:
    """Returns what each way of holding items' vectors costs and saves."""
    trained, scored = result["training"], result["scored"]
    rows = [["table", "HR@10", "NDCG@10", "bytes an item", "MB", "one user, ms", "all users, s"]]
    for name, one in result["tables"].items():
        rows.append(
            [
                name,
                number(one["hr@10"]),
                number(one["ndcg@10"]),
                f"{one['bytes_per_item']:.0f}",
                f"{one['table_megabytes']:,.0f}",
                f"{one['milliseconds_one_user']:.0f}",
                f"{one['seconds_all_users']:.1f}",
            ]
        )
    return (
        f"Quality: {trained['data']}, {trained['items']:,} items, {trained['epochs']} epochs. Size "
        f"and time: {scored['items']:,} items and {scored['users']:,} users. {on(result)}\n\n"
        f"{markdown(rows)}"
    )


def on(result: dict[str, Any]) -> str:
    machine = result["machine"]
    cores = "one core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return f"Measured on {cores} of {machine['processor']}; other work ran on the machine."


# By result file: the page that shows it, and how.
TABLES: dict[str, tuple[Path, Callable[[dict[str, Any]], str]]] = {
    "large_catalogue": (DOCS / "optimizers.md", of_catalogues),
    "compressed_tables": (DOCS / "export.md", of_smaller_tables),
}

if __name__ == "__main__":
    main()
