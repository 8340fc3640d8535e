"""The table of methods in docs/fine_tuning.md, made of the result file.

    python benchmarks/ranking/effects_table.py

What stands between the two marks of the page is replaced; the text around it is written by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from ranking_tables import METRICS
from reporting import between_marks, markdown, spread

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "fine_tuning.md"
RESULT = HERE / "results" / "effects_completejourney.json"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(renewed(page, json.loads(RESULT.read_text())), encoding="utf-8")


def renewed(page: str, result: dict[str, Any]) -> str:
    """Returns the page with the table that the result gives."""
    return between_marks(page, f"\n{table(result)}\n\n")


def table(result: dict[str, Any]) -> str:
    """Returns a row a method, and how it differs from what it is measured against."""
    rows = [["", *METRICS.values(), "AUC against without", "weights trained", "seeds"]]
    for row in result["summary"]:
        against = row["against"]
        name = f"**{row['method']}**" if against is None else row["method"]
        difference = "" if against is None else shown(row["auc"]["difference"], signed=True)
        cells = [shown(row[metric]) for metric in METRICS]
        weights = f"{row['trained_weights']['model']:,}"
        rows.append([name, *cells, difference, weights, str(row["seeds"])])
    return markdown(rows)


def shown(figure: dict[str, float | None], *, signed: bool = False) -> str:
    return spread(figure["mean"], figure["deviation"], signed=signed)


if __name__ == "__main__":
    main()
