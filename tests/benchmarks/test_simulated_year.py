import json
from pathlib import Path

import pytest

UPDATING = Path(__file__).parents[2] / "benchmarks" / "updating"

pytestmark = pytest.mark.skipif(not UPDATING.exists(), reason="benchmarks/ is not beside the tests")


@pytest.fixture
def simulated_year(scripts_in):
    return scripts_in("updating")("simulated_year")


def test_the_page_shows_the_result_file(simulated_year):
    page = simulated_year.PAGE.read_text(encoding="utf-8")
    assert page == simulated_year.renewed(page, simulated_year.RESULT), (
        "docs/updating.md is out of date: run python benchmarks/updating/simulated_year.py"
    )


def test_the_alarm_of_the_kept_year_rings_after_the_shift_and_not_before(simulated_year):
    if not simulated_year.RESULT.exists():
        pytest.skip("no simulated year is kept yet")
    result = json.loads(simulated_year.RESULT.read_text())
    found = result["summary"]
    assert found == simulated_year.summary(result["weeks"])
    assert found["alarms_before_the_shift"] == []
    assert found["alarms_from_the_shift_on"][0] == result["shift_week"]


@pytest.mark.slow
def test_a_short_year_runs(simulated_year, tmp_path):
    page = tmp_path / "updating.md"
    page.write_text(simulated_year.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    files = {"result": tmp_path / "year.json", "picture": tmp_path / "year.png", "page": page}
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    simulated_year.main(["--users", "200", "--items", "40", "--weeks", "23", *options])
    weeks = json.loads(files["result"].read_text())["weeks"]
    assert [one["week"] for one in weeks] == list(range(16, 22))
    assert "scratch" in weeks[-1]["ndcg@10"]
    assert files["picture"].exists()
