"""The benchmark beside peers: its page is up to date, and our own worker runs on little data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SPEED = ROOT / "benchmarks" / "speed"

pytestmark = pytest.mark.skipif(not SPEED.exists(), reason="benchmarks/ is not beside the tests")


@pytest.fixture
def speed(scripts_in):
    return scripts_in("speed", "speed/peers")


def run(tmp_path, *arguments):
    command = [sys.executable, SPEED / "peers.py", "--smoke", "--results", tmp_path, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tables_of_the_page_are_those_of_the_result_files(speed):
    tables = speed("speed_tables")
    page = tables.PAGE.read_text(encoding="utf-8")
    assert page == tables.renewed(page, SPEED / "results"), (
        "docs/speed.md is out of date: run python benchmarks/speed/speed_tables.py"
    )


@pytest.mark.slow
def test_our_own_worker_is_measured_without_the_peers(tmp_path, speed):
    printed = run(tmp_path, "--rounds", "1", "--epochs", "2")
    result = json.loads((tmp_path / "peers_simulated.json").read_text())
    for loss, largest in (("softmax", result["data"]["items"]), ("sampled", 257)):
        ours = result["losses"][loss]["ours"]
        (measured,) = ours["rounds"]["plain"]
        assert len(measured["seconds_an_epoch"]) == 2
        assert ours["seconds_an_epoch"] > 0
        assert ours["users_a_second"] > 0
        assert 0 < ours["added_megabytes"] < ours["process_megabytes"]
        # An untrained model gives every candidate the same share.
        assert measured["first_loss"] == pytest.approx(np.log(largest), abs=0.1)
        assert measured["mean_losses"][1] < measured["mean_losses"][0]
    assert speed("speed_tables").epochs(result["losses"]["softmax"]) in printed


@pytest.mark.slow
def test_the_time_to_a_validation_value_is_measured(tmp_path):
    printed = run(tmp_path, "--to-best")
    result = json.loads((tmp_path / "to_best_simulated.json").read_text())["sasrec"]
    assert result["reached"]
    assert result["ours"]["stopped"] == "reached the target"
    seconds = [epoch["seconds"] for epoch in result["ours"]["curve"]]
    assert result["times_faster"] == pytest.approx(result["best"]["seconds"] / seconds[-1])
    assert "times faster" in printed
    assert not list(tmp_path.glob("curve_*"))


def test_steps_time_epochs_without_the_first_steps(speed, monkeypatch):
    measuring = speed("measuring")
    seconds = iter([0, 50, *range(99, 117)])  # the first steps take longer
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: float(next(seconds)))
    steps = measuring.Steps(10, epochs=2, warmup=3)
    steps.begin()
    for _ in range(20):
        steps.end_step(1.0)
    # A second a step: ten for an epoch of ten steps, of which the first measured seven.
    assert steps.result()["seconds_an_epoch"] == [10.0, 10.0]
    assert steps.result()["steps_measured"] == 17


def test_our_clock_counts_the_steps_that_a_call_takes(speed, monkeypatch):
    measuring, ours = speed("measuring"), speed("run_ours")
    seconds = iter(np.arange(20.0))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(seconds))
    # Three calls an epoch, the last of two steps, which Keras counts as four, too.
    clock = ours.StepClock(measuring.Steps(10, epochs=2, warmup=4))
    clock.on_train_begin()
    for epoch in range(2):
        clock.on_epoch_begin(epoch)
        for last in (3, 7, 11):
            clock.on_train_batch_end(last, {"loss": 2.0 + epoch})
    result = clock.steps.result()
    assert (result["steps_measured"], result["mean_losses"]) == (16, [2.0, 3.0])


def test_the_peers_rankings_are_judged_as_ours(speed):
    from tfrec_llm.metrics import ndcg, target_ranks

    rng = np.random.default_rng(0)
    scores = rng.integers(0, 30, (50, 40)).astype(np.float32)
    targets = rng.integers(-1, 40, 50)
    rows, columns = np.nonzero(rng.random((50, 40)) < 0.2)
    expected = ndcg(target_ranks(scores, targets, removed=(rows, columns)), 10)
    found = speed("measuring").ndcg_at_10(scores.copy(), targets, (rows, columns))
    np.testing.assert_allclose(found, expected)
