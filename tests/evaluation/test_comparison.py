import json

import numpy as np
import pytest

from tfrec_llm.baselines import MarkovChain, Popularity
from tfrec_llm.data import ShopSimulator, leave_last_out
from tfrec_llm.evaluation import Comparison, EvaluatedUsers, Report, compare


def reported(hits, users=None):
    users = users or EvaluatedUsers(len(hits), 100, len(hits), 0, filter_seen=True)
    hits = np.asarray(hits, float)
    return Report.from_users({"hr@10": hits, "novelty@10": 5 - hits}, users)


@pytest.fixture
def comparison():
    rng = np.random.default_rng(0)
    weak = rng.random(500) < 0.3
    strong = weak | (rng.random(500) < 0.05)
    return Comparison({"weak": reported(weak), "strong": reported(strong), "same": reported(weak)})


def test_the_best_of_each_metric_is_marked_where_more_is_better(comparison):
    lines = str(comparison).splitlines()
    assert "* marks the best" in lines[0]
    marked = [line.split()[0] for line in lines[2:] if "*" in line]
    assert marked == ["strong"]
    assert lines[3].split()[1] == f"{comparison['strong']['hr@10']:.4f}*"
    assert not lines[3].endswith("*")  # novelty has no better and worse


def test_paired_differences_find_leads_that_separate_intervals_hide(comparison):
    lead = comparison.difference("strong", "weak", "hr@10")
    assert lead.value == pytest.approx(comparison["strong"]["hr@10"] - comparison["weak"]["hr@10"])
    assert 0 < lead.low < lead.value < lead.high
    assert comparison["strong"].intervals["hr@10"][0] < comparison["weak"].intervals["hr@10"][1]
    none = comparison.difference("same", "weak", "hr@10")
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_a_comparison_becomes_a_frame_json_and_a_picture(comparison, tmp_path):
    frame = comparison.to_pandas()
    assert frame.loc["strong", "hr@10"] == comparison["strong"]["hr@10"]
    assert set(json.loads(json.dumps(comparison.to_dict()))) == {"weak", "strong", "same"}
    figure = comparison.plot(tmp_path / "comparison.svg")
    assert (tmp_path / "comparison.svg").stat().st_size > 0
    assert [axes.get_title() for axes in figure.axes] == ["hr"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(comparison)
    with pytest.raises(ValueError, match="None of"):
        comparison.plot(metrics=["auc"])


def test_reports_over_other_users_or_protocols_do_not_compare():
    one = reported([0, 1])
    other = reported([0, 1], EvaluatedUsers(2, 100, 2, 0, filter_seen=False))
    with pytest.raises(ValueError, match=r"do not compare.*seen items removed.*nothing removed"):
        Comparison({"one": one, "other": other})
    with pytest.raises(ValueError, match="needs a report"):
        Comparison({})


def test_catalogues_may_differ_and_are_told():
    few = reported([0, 1], EvaluatedUsers(2, 80, 2, 1, filter_seen=True))
    lines = str(Comparison({"all": reported([0, 1]), "frequent": few})).splitlines()
    assert [line.partition(")")[0] for line in lines[2:]] == [
        "all (100 items",
        "frequent (80 items",
    ]


def test_compare_evaluates_every_scorer_alike():
    split = leave_last_out(ShopSimulator(60, 25, seed=1).simulate())
    scorers = {"popularity": Popularity().fit(split.train), "chain": MarkovChain().fit(split.train)}
    compared = compare(scorers, split.test, k=3, metrics=["ndcg"])
    assert list(compared) == ["popularity", "chain"]
    for name, scorer in scorers.items():
        assert dict(compared[name]) == dict(scorer.evaluate(split.test, k=3, metrics=["ndcg"]))
