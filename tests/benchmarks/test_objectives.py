"""The benchmark of pre-training objectives: its page is up to date, and it works on little data."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUALITY = ROOT / "benchmarks" / "quality"

pytestmark = pytest.mark.skipif(not QUALITY.exists(), reason="benchmarks/ is not beside the tests")


@pytest.fixture
def objectives(scripts_in):
    return scripts_in("quality")("objectives")


def test_the_table_of_the_page_is_that_of_the_result_files(objectives):
    page = objectives.PAGE.read_text(encoding="utf-8")
    assert page == objectives.renewed(page, objectives.RESULTS), (
        "docs/pretraining.md is out of date: run benchmarks/quality/objectives.py"
    )


@pytest.mark.slow
def test_a_run_trains_what_is_not_in_the_result_file_yet(objectives, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["objectives.py", "simulated", "--seeds", "0"])
    sys.argv += ["--epochs", "1", "--users", "60", "--objectives", "attributes"]
    sys.argv += ["--results", str(tmp_path)]
    for _ in range(2):
        objectives.main()
        said = capsys.readouterr().out
    result = json.loads((tmp_path / "objectives_simulated.json").read_text())
    assert list(result["runs"]) == ["next alone", "attributes first", "attributes beside"]
    assert all(set(run) == {"0"} for run in result["runs"].values())
    assert result["counts"]["users"] == 60
    assert "Epoch" not in said, "the second time nothing is trained"
    assert "| simulated | attributes beside | ." in said


def test_gains_are_of_the_same_seed(objectives):
    def runs(*figures):
        return {
            str(seed): {"test": {"hr@10": 0.5, "ndcg@10": figure}, "seconds": 1.0}
            for seed, figure in enumerate(figures)
        }

    result = {"data": "x", "runs": {"next alone": runs(0.2, 0.4), "session first": runs(0.3, 0.4)}}
    assert "| session first | .5000 ± .0000 | .3500 ± .0707 | +25.0% (1 of 2 better) |" in (
        objectives.table([result])
    )
