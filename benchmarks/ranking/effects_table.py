"""The table of methods in docs/fine_tuning.md, made of the result file.

    python benchmarks/ranking/effects_table.py

What stands between the two marks of the page is replaced; the text around it is written by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from reporting import between_marks, markdown

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "fine_tuning.md"
RESULT = HERE / "results" / "effects_completejourney.json"
METRICS = {
    "auc": "AUC",
    "grouped_auc": "grouped AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}


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
        difference = "" if against is None else spread(row["auc"]["difference"], signed=True)
        cells = [spread(row[metric]) for metric in METRICS]
        weights = f"{row['trained_weights']['model']:,}"
        rows.append([name, *cells, difference, weights, str(row["seeds"])])
    return markdown(rows)


def spread(figure: dict[str, float | None], *, signed: bool = False) -> str:
    mean, deviation = figure["mean"], figure["deviation"]
    if mean is None:
        return ""
    text = f"{mean:+.4f}" if signed else f"{mean:.4f}"
    text = text.replace("0.", ".", 1)
    return text if deviation is None else f"{text} ± {deviation:.4f}".replace(" 0.", " .")


if __name__ == "__main__":
    main()
