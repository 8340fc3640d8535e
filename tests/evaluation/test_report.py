import json

import numpy as np
import pytest

from tfrec_llm.evaluation import EvaluatedUsers, Report, bootstrap_means

USERS = EvaluatedUsers(400, 1000, 400, 3, filter_seen=True)


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.3).astype(float)
    per_user = {"hr@5": hits * (rng.random(400) < 0.5), "hr@10": hits, "ndcg@10": hits / 2}
    return Report.from_users(per_user, USERS, overall={"coverage@10": 0.25})


def test_a_report_is_a_mapping_of_metrics(report):
    assert report["hr@10"] == pytest.approx(np.mean(report.per_user["hr@10"]))
    assert list(report) == ["hr@5", "hr@10", "ndcg@10", "coverage@10"]
    assert dict(report)["coverage@10"] == 0.25
    with pytest.raises(KeyError, match="'mrr@10' was not evaluated; this report has hr@5"):
        report["mrr@10"]


def test_intervals_have_the_width_of_the_normal_approximation(report):
    low, high = report.intervals["hr@10"]
    deviation = np.std(report.per_user["hr@10"]) / np.sqrt(400)
    assert low < report["hr@10"] < high
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert "coverage@10" not in report.intervals


def test_intervals_repeat_with_the_seed():
    values = {"hr@1": np.arange(50.0)}
    same = [Report.from_users(values, USERS, seed=3).intervals for _ in range(2)]
    assert same[0] == same[1]
    assert Report.from_users(values, USERS, seed=4).intervals != same[0]


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        values = {"hr@10": (rng.random(300) < 0.2).astype(float)}
        low, high = Report.from_users(values, USERS, confidence=0.9, seed=seed).intervals["hr@10"]
        held += low <= 0.2 <= high
    assert 0.84 <= held / 200 <= 0.96


def test_the_bootstrap_draws_as_a_plain_loop_draws():
    values = np.random.default_rng(0).random((30, 2))
    values[3, 1] = np.nan
    means = bootstrap_means(values, resamples=5, seed=7)
    drawn = np.random.default_rng(7).integers(0, 30, (5, 30))
    for row, users in enumerate(drawn):
        np.testing.assert_allclose(means[row], np.nanmean(values[users], axis=0))


def test_the_bootstrap_of_many_users_goes_in_blocks():
    means = bootstrap_means(np.random.default_rng(0).random((3_000_000, 1)), resamples=3)
    assert means.shape == (3, 1)
    np.testing.assert_allclose(means, 0.5, atol=2e-3)


def test_users_without_a_value_are_left_out_of_its_mean():
    per_user = {"diversity@10": np.array([0.2, np.nan, 0.4]), "novelty@10": np.full(3, np.nan)}
    report = Report.from_users(per_user, USERS)
    assert report["diversity@10"] == pytest.approx(0.3)
    assert np.isnan(report["novelty@10"])


def test_a_printed_report_is_a_table_of_metrics_by_length(report):
    lines = str(report).splitlines()
    assert lines[0] == (
        "400 users, 1,000 items, seen items removed, 400 targets, 3 of them unknown; 95 % intervals"
    )
    assert lines[1].split() == ["@5", "@10"]
    assert lines[3].index(f"{report['ndcg@10']:.4f} [") == lines[1].index("@10")
    assert [line.split()[0] for line in lines[2:]] == ["hr", "ndcg", "coverage"]


def test_a_report_becomes_a_frame_and_json(report):
    frame = report.to_pandas()
    assert list(frame.columns) == ["metric", "k", "value", "low", "high"]
    row = frame[(frame["metric"] == "hr") & (frame["k"] == 10)].iloc[0]
    assert (row["low"], row["high"]) == report.intervals["hr@10"]
    assert frame["low"].isna().sum() == 1
    kept = json.loads(report.to_json())
    assert kept["values"] == dict(report)
    assert kept["evaluated"]["users"] == 400


def test_a_report_draws_itself_without_a_display(report, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    figure = report.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in figure.axes] == ["hr", "ndcg", "coverage"]
    assert [bar.get_height() for bar in figure.axes[0].patches] == [report["hr@5"], report["hr@10"]]


def test_a_share_that_is_no_confidence_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Report.from_users({"hr@1": np.ones(3)}, USERS, confidence=95)
