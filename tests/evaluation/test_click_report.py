import json

import numpy as np
import pandas as pd
import pytest

from tfrec_llm.errors import DataError, NullValueError
from tfrec_llm.evaluation import Comparison, evaluate_probabilities, plot_reliability
from tfrec_llm.metrics import auc, calibration_error, grouped_auc, log_loss, normalized_entropy


def clicked(seed, *, users=80, rows=1200):
    """Users who differ in how much they click, and what a true model holds likely."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, rows)
    logits = rng.normal(-1.5, 1.0, users)[user] + rng.normal(0, 1, rows)
    probabilities = 1 / (1 + np.exp(-logits))
    return rng.random(rows) < probabilities, probabilities, user


@pytest.fixture(scope="module")
def clicks():
    return clicked(0)


@pytest.fixture(scope="module")
def report(clicks):
    labels, probabilities, users = clicks
    return evaluate_probabilities(labels, probabilities, users=users)


def test_the_values_are_those_of_the_metrics(clicks, report):
    labels, probabilities, users = clicks
    weights = np.random.default_rng(1).random(len(labels))
    for options in ({}, {"weights": weights}):
        found = evaluate_probabilities(
            labels, probabilities, users=users, confidence=None, **options
        )
        expected = {
            "auc": auc(labels, probabilities, **options),
            "grouped_auc": grouped_auc(labels, probabilities, users, **options).value,
            "log_loss": log_loss(labels, probabilities, **options),
            "normalized_entropy": normalized_entropy(labels, probabilities, **options),
            "base_rate": np.average(labels, **options),
            "mean_probability": np.average(probabilities, **options),
            "calibration_error": calibration_error(labels, probabilities, **options),
        }
        assert list(found) == [*expected, "calibration_error_by_chance"]
        assert {name: found[name] for name in expected} == pytest.approx(expected)
    alone = evaluate_probabilities(labels, probabilities, confidence=None)
    assert "grouped_auc" not in alone
    assert alone["auc"] == report["auc"]
    with pytest.raises(KeyError, match="'grouped_auc' was not evaluated; this report has auc"):
        alone["grouped_auc"]


def test_it_tells_over_what_it_was_made(clicks, report):
    labels, probabilities, users = clicks
    counted = grouped_auc(labels, probabilities, users)
    assert report.evaluated.impressions == 1200
    assert report.evaluated.clicks == labels.sum()
    assert report.evaluated.users == len(np.unique(users))
    assert report.evaluated.users_left_out == counted.users_left_out
    lines = str(report).splitlines()
    assert lines[0] == (
        f"1,200 impressions, {labels.sum()} clicks, {report.evaluated.users} users, "
        f"{counted.users_left_out} of them with one class only; 95 % intervals"
    )
    assert lines[1].split()[:2] == ["auc", f"{report['auc']:.4f}"]
    assert len(lines) == 1 + len(report)


@pytest.mark.parametrize("by_user", [False, True])
def test_resamples_are_the_metrics_of_rows_drawn_again(by_user, clicks):
    labels, probabilities, users = (values[:100] for values in clicks)
    report = evaluate_probabilities(
        labels, probabilities, users=users if by_user else None, confidence=None
    )
    names = report.impressions.metrics
    found = report.impressions.resample(names, resamples=6, seed=3)
    names_of_users, first = np.unique(users, return_index=True)
    in_order = names_of_users[np.argsort(first)] if by_user else np.arange(100)
    drawn = np.random.default_rng(3).integers(0, len(in_order), (6, len(in_order)))
    for number, units in enumerate(drawn):
        parts = [np.flatnonzero(users == in_order[unit]) if by_user else [unit] for unit in units]
        rows = np.concatenate(parts).astype(int)
        # Every draw of a user is a user of its own.
        who = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        expected = evaluate_probabilities(
            labels[rows], probabilities[rows], users=who if by_user else None, confidence=None
        )
        again = {name: found[name][number] for name in names}
        assert again == pytest.approx({name: expected[name] for name in names})


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = evaluate_probabilities(*clicked(99, users=20_000, rows=300_000)[:2], confidence=None)
    held = {"auc": 0, "log_loss": 0, "base_rate": 0}
    for seed in range(60):
        labels, probabilities, users = clicked(seed, users=60, rows=600)
        report = evaluate_probabilities(labels, probabilities, users=users, confidence=0.9)
        for name in held:
            low, high = report.intervals[name]
            held[name] += low <= truth[name] <= high
    assert all(0.8 <= held[name] / 60 <= 0.98 for name in held), held


def test_intervals_over_users_are_wider_where_users_differ(clicks):
    labels, probabilities, users = clicks
    rows = evaluate_probabilities(labels, probabilities)
    both = evaluate_probabilities(labels, probabilities, users=users)
    width = [np.ptp(report.intervals["base_rate"]) for report in (rows, both)]
    assert width[1] > 1.5 * width[0]
    assert rows.intervals == evaluate_probabilities(labels, probabilities).intervals
    assert rows.intervals != evaluate_probabilities(labels, probabilities, seed=1).intervals
    assert set(both) - set(both.intervals) == {"calibration_error", "calibration_error_by_chance"}


def test_a_true_model_errs_as_much_as_chance_and_a_false_one_more(clicks):
    labels, probabilities, _ = clicked(5, rows=20_000)
    true = evaluate_probabilities(labels, probabilities, confidence=None)
    sure = evaluate_probabilities(labels, probabilities**0.5, confidence=None)
    assert true["calibration_error"] < 1.5 * true["calibration_error_by_chance"]
    assert sure["calibration_error"] > 10 * sure["calibration_error_by_chance"]


def test_small_leads_show_where_resamples_are_shared(clicks):
    labels, probabilities, users = clicks
    noise = np.exp(np.random.default_rng(2).normal(0, 0.3, len(labels)))
    reports = Comparison(
        {
            "noisy": evaluate_probabilities(labels, probabilities**noise, users=users),
            "true": evaluate_probabilities(labels, probabilities, users=users),
        }
    )
    lead = reports.difference("true", "noisy", "auc")
    assert lead.value == pytest.approx(reports["true"]["auc"] - reports["noisy"]["auc"])
    assert 0 < lead.low < lead.value < lead.high
    assert reports["true"].intervals["auc"][0] < reports["noisy"].intervals["auc"][1]
    assert reports.difference("true", "noisy", "log_loss").high < 0
    nothing = reports.difference("true", "true", "grouped_auc")
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="'calibration_error' has no intervals; these have: auc"):
        reports.difference("true", "noisy", "calibration_error")


def test_a_comparison_marks_the_smaller_loss_and_the_larger_auc(clicks, tmp_path):
    labels, probabilities, _ = clicks
    comparison = Comparison(
        {
            "rate": evaluate_probabilities(labels, np.full(len(labels), labels.mean())),
            "true": evaluate_probabilities(labels, probabilities),
        }
    )
    lines = str(comparison).splitlines()
    assert lines[1].split()[:3] == ["auc", "log_loss", "normalized_entropy"]
    assert [cell.endswith("*") for cell in lines[3].split()[1:4]] == [True] * 3
    assert not any(cell.endswith("*") for cell in lines[2].split()[1:6])
    titles = [axes.get_title() for axes in comparison.plot(tmp_path / "bars.png").figure.axes]
    assert titles == ["auc", "log_loss"]
    figure = plot_reliability(comparison, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text().split(",")[0] for text in legend.get_texts()] == ["rate", "true"]


def test_reports_over_other_impressions_do_not_compare(clicks):
    labels, probabilities, users = clicks
    whole = evaluate_probabilities(labels, probabilities, confidence=None)
    part = evaluate_probabilities(labels[1:], probabilities[1:], confidence=None)
    with pytest.raises(ValueError, match="do not compare"):
        Comparison({"whole": whole, "part": part})
    turned = evaluate_probabilities(labels[::-1], probabilities[::-1], confidence=None)
    known = evaluate_probabilities(labels, probabilities, users=users, confidence=None)
    for other in (turned, known):
        with pytest.raises(ValueError, match="over other impressions"):
            whole.difference(other, "auc")


def test_a_report_becomes_a_frame_json_and_a_picture(report, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    frame = report.to_pandas().set_index("metric")
    assert tuple(frame.loc["auc", ["low", "high"]]) == report.intervals["auc"]
    assert np.isnan(frame.loc["calibration_error", "low"])
    kept = json.loads(report.to_json())
    assert kept["values"] == dict(report)
    assert kept["evaluated"]["users_left_out"] == report.evaluated.users_left_out
    figure = report.plot(tmp_path / "report.svg")
    assert (tmp_path / "report.svg").stat().st_size > 0
    points = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), report.reliability.probability)
    np.testing.assert_allclose(points.get_ydata(), report.reliability.rate)


def test_pairs_without_weight_count_nowhere(clicks):
    labels, probabilities, users = clicks
    padding = np.arange(len(labels)) % 3 == 0
    there = ~padding
    who = pd.Series([f"u{user}" for user in users]).where(there)
    found = evaluate_probabilities(labels, probabilities[:, None], users=who, weights=there)
    alone = evaluate_probabilities(labels[there], probabilities[there], users=users[there])
    assert dict(found) == pytest.approx(dict(alone))
    assert (found.evaluated, found.intervals) == (alone.evaluated, alone.intervals)


def test_one_class_alone_leaves_open_what_it_cannot_tell():
    report = evaluate_probabilities([0, 0, 0], [0.1, 0.2, 0.3], users=[1, 1, 2])
    unknown = {name for name, value in report.items() if np.isnan(value)}
    assert unknown == {"auc", "grouped_auc", "normalized_entropy"}
    assert np.isnan(report.intervals["auc"]).all()
    assert report["calibration_error"] == pytest.approx(0.2)
    assert "nan" in str(report)


def test_resamples_without_a_click_are_left_out_of_the_intervals():
    labels, probabilities = np.arange(50) == 7, np.linspace(0.1, 0.2, 50)
    low, high = evaluate_probabilities(labels, probabilities).intervals["auc"]
    assert 0 <= low < high <= 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": [], "probabilities": []}, DataError, "no labels"),
        ({"labels": [0, np.nan]}, DataError, "1 of 2 labels are NaN"),
        ({"probabilities": [0.1, np.nan]}, DataError, "1 of 2 probabilities are NaN"),
        ({"probabilities": [0.1, 4.0]}, DataError, "first 4"),
        ({"users": ["u", None]}, NullValueError, "1 of 2 pairs have no user"),
        ({"users": ["u"]}, DataError, "there are 1 for 2 labels"),
        ({"weights": [0, 0]}, DataError, "All 2 weights are 0"),
        ({"bins": 0}, ValueError, "bins must be 1 or more"),
        ({"confidence": 95}, ValueError, "between 0 and 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        evaluate_probabilities(**{"labels": [0, 1], "probabilities": [0.1, 0.2]} | options)
    with pytest.raises(ValueError, match="no report"):
        plot_reliability({})
