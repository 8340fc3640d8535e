"""The quality benchmark: its page is up to date, and its whole path works on little data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUALITY = ROOT / "benchmarks" / "quality"

pytestmark = pytest.mark.skipif(not QUALITY.exists(), reason="benchmarks/ is not beside the tests")


@pytest.fixture
def quality(scripts_in):
    return scripts_in("quality")


def test_the_tables_of_the_page_are_those_of_the_result_files(quality):
    tables = quality("tables")
    page = tables.PAGE.read_text(encoding="utf-8")
    assert page == tables.renewed(page, QUALITY / "results"), (
        "docs/results.md is out of date: run python benchmarks/quality/tables.py"
    )


def test_the_readmes_show_the_result_files(quality):
    tables = quality("tables")
    for path, heading in tables.READMES.items():
        readme = path.read_text(encoding="utf-8")
        table = tables.beside_published(heading, QUALITY / "results")
        assert table in readme, f"{path.name}: run python benchmarks/quality/tables.py"
        assert table.count("\n| ") > 2


@pytest.mark.slow
def test_a_run_writes_results_that_more_seeds_join_and_the_tables_show(quality, tmp_path, capsys):
    folders = {"models": tmp_path / "models", "results": tmp_path}
    command = [sys.executable, QUALITY / "run.py", "simulated", "--epochs", "1"]
    options = [part for name, folder in folders.items() for part in (f"--{name}", folder)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "simulated_next.json").read_text())

    quality("run").run("simulated", "next", seeds=[0, 1], epochs=1, fresh=False, **folders)
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "simulated_next.json").read_text())
    assert "Seed 0 is in simulated_next.json already." in printed
    assert result["seeds"]["0"] == first["seeds"]["0"]
    assert list(result["seeds"]) == ["0", "1"]
    tests = [seed["U"]["model"]["test"]["ndcg@10"] for seed in result["seeds"].values()]
    mean = result["summary"]["U"]["model"]["ndcg@10"]["mean"]
    assert mean == pytest.approx(sum(tests) / 2)
    assert set(result["floors"]) == {"popularity", "Markov chain", "sequential rules"}
    assert result["all_seeds"]["seeds"] == [0, 1]
    table = quality("tables").quality("simulated", [result])
    assert all(f"| {name} | ." in table for name in result["floors"])
    assert "measured, mean of 2 seeds" in table
    assert table in printed

    blended = quality("blend").blend_all("simulated", **folders)
    weights = blended["F"]["weights"]
    assert set(weights) == {"next, seed 0", "next, seed 1", "sequential rules"}
    assert sum(weights.values()) == pytest.approx(1.0)
    assert "**next of 2 seeds**" in quality("tables").quality("simulated", [result], blended)


@pytest.mark.slow
def test_a_killed_training_ends_as_if_it_had_not_been(quality, tmp_path, monkeypatch):
    training, split = quality("training"), quality("splits").split_of("simulated")
    setting = {
        "recommender": {"emb_dim": 8, "num_layers": 1, "num_heads": 2, "max_length": 16},
        "fit": {"epochs": 3},
    }

    def train(folder):
        chosen = training.train(split, "next", setting, protocols=["F", "U"], seed=0, folder=folder)
        epochs = {protocol: training.best_epoch(one) for protocol, one in chosen.items()}
        scores = {
            protocol: one.evaluate(split.test, k=10, confidence=None)["ndcg@10"]
            for protocol, one in chosen.items()
        }
        return epochs, scores

    whole = train(tmp_path / "whole")

    def killed(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    original = training.BestUnder.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(training.BestUnder, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed")
    assert train(tmp_path / "killed") == whole
    assert train(tmp_path / "killed") == whole, "what is complete is loaded"


def test_the_next_basket_is_the_first_one_after_the_cut(quality):
    split = quality("splits").split_of("online_retail")
    for part in (split.valid, split.test):
        table = part.table.select(["user", "time"]).to_pandas()
        assert (table.groupby("user")["time"].nunique() == 1).all()
        history = part.history.table.select(["user", "time"]).to_pandas()
        assert set(table["user"]) <= set(history["user"])
        assert history["time"].max() < table["time"].min()
    assert (split.test.num_users, len(split.test)) == (1544, 38238)


def test_every_published_figure_names_its_source_and_a_known_data_set(quality):
    tables, data = quality("tables"), quality("settings").DATA
    for row in tables.PUBLISHED["rows"]:
        assert row["data"] in data
        assert row["source"]
        assert all(len(row[protocol]) == 2 for protocol in "FU" if protocol in row)


def test_every_data_set_has_a_setting_for_both_objectives(quality):
    settings = quality("settings")
    assert set(settings.SETTINGS) == {
        (data, objective) for data in settings.DATA for objective in ("next", "masked")
    }
