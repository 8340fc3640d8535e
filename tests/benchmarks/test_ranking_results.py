"""The page of clicks and conversions is that of the result files."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANKING = ROOT / "benchmarks" / "ranking"

pytestmark = pytest.mark.skipif(not RANKING.exists(), reason="benchmarks/ is not beside the tests")


@pytest.fixture
def tables(scripts_in):
    return scripts_in("ranking")("ranking_tables")


def test_the_tables_of_the_page_are_those_of_the_result_files(tables):
    page = tables.PAGE.read_text(encoding="utf-8")
    assert page == tables.renewed(page, tables.RESULTS), (
        "docs/ranking_results.md is out of date: run python benchmarks/ranking/ranking_tables.py"
    )


def test_means_and_deviations_stand_in_the_table_and_the_picture_is_drawn(tables, tmp_path):
    row = {"share": 0.1, "model": "ranking, pre-trained", "seeds": 2}
    for metric in tables.METRICS:
        row |= {metric: 0.75, f"{metric}_deviation": 0.01}
    result = {"data": "x", "summary": [row]}
    assert "| 10% | ranking, pre-trained | .7500 ± .0100 | " in tables.table(result)
    tables.draw(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
