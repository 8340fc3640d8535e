"""What single methods add: its table is up to date, and seeds are compared with themselves."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANKING = ROOT / "benchmarks" / "ranking"

pytestmark = pytest.mark.skipif(not RANKING.exists(), reason="benchmarks/ is not beside the tests")


@pytest.fixture
def ranking(scripts_in):
    return scripts_in("ranking")


def test_the_table_of_the_page_is_that_of_the_result_file(ranking):
    tables = ranking("effects_table")
    page = tables.PAGE.read_text(encoding="utf-8")
    assert page == tables.renewed(page, json.loads(tables.RESULT.read_text())), (
        "docs/fine_tuning.md is out of date: run python benchmarks/ranking/effects_table.py"
    )


def test_a_method_is_compared_with_the_same_seed_without_it(ranking):
    effects = ranking("effects")

    def one(seed, method, value):
        test = dict.fromkeys(effects.METRICS, value)
        weights = {"model": 7, "encoder": 3}
        measured = {"epochs": 2, "trained_weights": weights, "test": test}
        return {"seed": seed, "method": method, **measured}

    runs = [one(0, effects.FULL, 0.5), one(1, effects.FULL, 0.7)]
    runs += [one(0, "LoRA", 0.6), one(1, "LoRA", 0.8), one(2, "LoRA", 0.1)]
    full, lora = effects.summary(runs)
    assert (full["method"], full["seeds"], full["auc"]["mean"]) == (effects.FULL, 2, 0.6)
    assert lora["auc"]["mean"] == pytest.approx(0.5)
    assert lora["auc"]["difference"]["mean"] == pytest.approx(0.1)
    assert lora["auc"]["difference"]["deviation"] == pytest.approx(0.0)
    shown = ranking("effects_table").table({"summary": [full, lora]})
    assert "+.1000 ± .0000" in shown
