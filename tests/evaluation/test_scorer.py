import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from tfrec_llm.data import BehaviorLog, Catalogue, UserSequences, Vocabulary, leave_last_out
from tfrec_llm.data.vocabulary import NUM_RESERVED
from tfrec_llm.errors import (
    DataError,
    MissingColumnError,
    MixedTypeError,
    NotFittedError,
    UnknownItemError,
    UnknownUserError,
)
from tfrec_llm.evaluation import Scorer

ITEMS = list("ABCDEFGH")
BEHAVIORS = pd.DataFrame(
    {
        "user": ["ann"] * 4 + ["bob"] * 3 + ["cem"] * 3,
        "item": list("ABCD") + list("CCE") + list("HGF"),
        "time": range(10),
    }
)


class FollowingItems(Scorer):
    """Scores items by how soon they follow the newest one in the vocabulary's order."""

    def __init__(self, log, vocabulary=None):
        self.vocabulary = vocabulary or Vocabulary(ITEMS)
        self.histories = UserSequences.from_log(log, self.vocabulary)
        self.catalogue = log.catalogue

    def score(self, sequences):
        newest = np.array(
            [
                int(s[-1]) if len(s) else 2
                for s in map(sequences.__getitem__, range(len(sequences)))
            ],
            int,
        )
        behind = np.arange(self.vocabulary.size) - newest[:, None] - 1
        scores = -(behind % len(self.vocabulary)).astype(np.float32)
        scores[:, :NUM_RESERVED] = -np.inf
        scores.flags.writeable = False
        return scores


@pytest.fixture
def log():
    table = pd.DataFrame({"item": ITEMS, "category": ["low"] * 4 + ["high"] * 4})
    return BehaviorLog.from_pandas(BEHAVIORS, catalogue=Catalogue.from_pandas(table))


@pytest.fixture
def scorer(log):
    return FollowingItems(log)


def listed(frame, user):
    return frame[frame["user"] == user].sort_values("rank")["item"].to_list()


def test_known_users_get_the_best_of_what_they_have_not_seen(scorer):
    frame = scorer.recommend(["cem", "ann"], k=3)
    assert list(frame.columns) == ["user", "rank", "item", "score"]
    assert frame["user"].to_list() == ["cem"] * 3 + ["ann"] * 3
    assert frame["rank"].to_list() == [1, 2, 3, 1, 2, 3]
    assert listed(frame, "ann") == ["E", "F", "G"]
    assert listed(frame, "cem") == ["A", "B", "C"]


def test_recommended_scores_are_the_scores_of_the_scorer(scorer):
    frame = scorer.recommend(histories=[["B", "D"]], k=8, filter_seen=False)
    scores = scorer.score(UserSequences.from_histories([["B", "D"]], scorer.vocabulary))[0]
    assert frame["score"].to_list() == sorted(scores[NUM_RESERVED:], reverse=True)


def test_without_names_all_known_users_are_served(scorer):
    assert scorer.recommend(k=1)["user"].to_list() == ["ann", "bob", "cem"]


def test_new_users_are_numbered_and_may_have_done_nothing(scorer):
    frame = scorer.recommend(histories=[["B"], [], ["G", "H"]], k=2, batch_size=2)
    assert frame["user"].to_list() == [0, 0, 1, 1, 2, 2]
    assert listed(frame, 0) == ["C", "D"]
    assert listed(frame, 1) == ["A", "B"]
    assert listed(frame, 2) == ["A", "B"]


def test_seen_items_come_back_when_they_are_not_filtered(scorer):
    assert listed(scorer.recommend(["ann"], k=8), "ann") == list("EFGH")
    assert listed(scorer.recommend(["ann"], k=8, filter_seen=False), "ann") == list("EFGHABCD")


def test_more_than_there_is_gives_what_there_is(scorer):
    assert len(scorer.recommend(["ann"], k=1000)) == 4
    assert len(scorer.recommend(histories=[ITEMS], k=5)) == 0


@pytest.mark.parametrize("candidates", [["H", "A", "F"], [["H", "A", "F"], ["B", "D"]]])
def test_candidates_are_common_or_each_users_own(scorer, candidates):
    frame = scorer.recommend(["ann", "bob"], candidates=candidates, k=5)
    assert listed(frame, "ann") == ["F", "H"]
    assert listed(frame, "bob") == (["F", "H", "A"] if candidates[0] == "H" else ["B", "D"])


@pytest.mark.parametrize("exclude", [["E", "F", "new"], [["E", "F"], ["D", "new"]]])
def test_excluded_items_are_not_recommended(scorer, exclude):
    frame = scorer.recommend(["ann", "bob"], exclude=exclude, k=2)
    assert listed(frame, "ann") == ["G", "H"]
    assert listed(frame, "bob") == (["G", "H"] if exclude[0] == "E" else ["F", "G"])


def test_unknown_users_raise_or_are_left_out(scorer):
    with pytest.raises(UnknownUserError, match=r"1 of 2 users.*'zoe'"):
        scorer.recommend(["zoe", "bob"])
    assert set(scorer.recommend(["zoe", "bob"], on_unknown="ignore")["user"]) == {"bob"}
    with pytest.warns(UserWarning, match="1 of 2 users are left out.*'zoe'"):
        scorer.recommend(["zoe", "bob"], on_unknown="warn")
    assert len(scorer.recommend(["zoe"], on_unknown="ignore")) == 0


def test_each_users_candidates_stay_theirs_when_another_user_is_left_out(scorer):
    frame = scorer.recommend(
        ["zoe", "ann"], candidates=[["E"], ["G", "H"]], on_unknown="ignore", k=1
    )
    assert frame[["user", "item"]].to_numpy().tolist() == [["ann", "G"]]


def test_unknown_items_raise_or_are_left_out(scorer):
    for arguments in ({"histories": [["A", "Z9"]]}, {"users": ["ann"], "candidates": ["Z9", "H"]}):
        with pytest.raises(UnknownItemError, match="Z9"):
            scorer.recommend(**arguments)
    frame = scorer.recommend(histories=[["A", "Z9"]], on_unknown="ignore", k=1)
    assert frame["item"].to_list() == ["B"]
    frame = scorer.recommend(["ann"], candidates=["Z9", "H"], on_unknown="ignore")
    assert frame["item"].to_list() == ["H"]


def test_a_user_may_be_asked_for_twice(scorer):
    assert scorer.recommend(["ann", "ann"], k=1)["item"].to_list() == ["E", "E"]


def test_users_keep_the_type_of_their_ids():
    frame = BEHAVIORS.assign(user=BEHAVIORS["user"].str.len() + (BEHAVIORS["user"] == "bob"))
    scorer = FollowingItems(BehaviorLog.from_pandas(frame))
    assert scorer.recommend([4], k=1)["user"].to_list() == [4]
    with pytest.raises(MixedTypeError):
        scorer.recommend(["4"])


@pytest.fixture
def priced(log):
    """A scorer whose catalogue lacks B and H, and F's price."""
    prices = {"A": 5.0, "C": 1.0, "D": 2.0, "E": 3.0, "F": None, "G": 4.0, "X": 0.5}
    table = pd.DataFrame({"item": list(prices), "price": list(prices.values())})
    table["tags"] = [["new"] if item in "CE" else ["old", "new"] for item in prices]
    return FollowingItems(BehaviorLog(log.table, catalogue=Catalogue.from_pandas(table)))


def test_only_items_that_satisfy_a_condition_are_recommended(priced):
    options = {"k": 8, "filter_seen": False}
    found = priced.recommend(["ann"], where=pc.field("price") < 4.5, **options)
    assert listed(found, "ann") == ["E", "G", "C", "D"]
    # Neither an item without a price nor one that the catalogue does not hold satisfies either.
    found = priced.recommend(["ann"], where=pc.field("price") >= 4.5, **options)
    assert listed(found, "ann") == ["A"]
    found = priced.recommend(["ann"], where=pc.field("price").is_null(), **options)
    assert listed(found, "ann") == ["F"]
    both = (pc.field("price") > 1) & ~pc.field("item").isin(["E"])
    assert listed(priced.recommend(["ann"], where=both, **options), "ann") == ["G", "A", "D"]
    lists = pc.list_value_length(pc.field("tags")) == 1
    assert listed(priced.recommend(["ann"], where=lists, **options), "ann") == ["E", "C"]
    assert len(priced.recommend(["ann"], where=pc.field("price") < 0.0)) == 0


@pytest.mark.parametrize("candidates", [["H", "G", "E"], [["H", "G", "E"], ["D", "F"]]])
def test_a_condition_joins_with_candidates_and_exclusions(priced, candidates):
    where = pc.field("price") < 4.5
    found = priced.recommend(["ann", "bob"], candidates=candidates, where=where)
    assert listed(found, "ann") == ["E", "G"]
    assert listed(found, "bob") == (["G"] if candidates[0] == "H" else ["D"])
    found = priced.recommend(["ann", "bob"], candidates=candidates, where=where, exclude=["E"])
    assert listed(found, "ann") == ["G"]


def test_conditions_that_cannot_be_told_say_why(priced):
    with pytest.raises(MissingColumnError, match=r"no column 'cost'. It has 'item', 'price'"):
        priced.recommend(["ann"], where=pc.field("cost") < 50)
    for where in (pc.field("price") < "dear", pc.field("price") + 1):
        with pytest.raises(DataError, match=r"no condition on the catalogue.*price \(double\)"):
            priced.recommend(["ann"], where=where)
    with pytest.raises(TypeError, match=r"pc.field.*got str"):
        priced.recommend(["ann"], where="price < 50")
    priced.catalogue = None
    with pytest.raises(DataError, match="there is no catalogue"):
        priced.recommend(["ann"], where=pc.field("price") < 50)


def test_wrong_calls_say_what_is_wrong(scorer):
    with pytest.raises(ValueError, match="not both"):
        scorer.recommend(["ann"], histories=[["A"]])
    with pytest.raises(ValueError, match="k must be 1"):
        scorer.recommend(["ann"], k=0)
    with pytest.raises(ValueError, match="on_unknown"):
        scorer.recommend(["ann"], on_unknown="skip")
    with pytest.raises(ValueError, match="2 lists of items were given for 1 users"):
        scorer.recommend(["ann"], candidates=[["A"], ["B"]])
    scorer.histories = None
    with pytest.raises(NotFittedError, match="No users are known"):
        scorer.recommend(["ann"])


def test_evaluate_agrees_with_recommend(log):
    split = leave_last_out(log)
    scorer = FollowingItems(split.train)
    report = scorer.evaluate(split.test, k=(1, 2))
    frame = scorer.recommend(
        histories=UserSequences.from_log(split.test.history, scorer.vocabulary), k=2
    )
    target = dict(zip(split.test.user.to_pylist(), split.test.item.to_pylist(), strict=True))
    hits = [item == target[user] for user, item in zip(frame["user"], frame["item"], strict=True)]
    assert report["hr@2"] == pytest.approx(sum(hits) / 3)


def test_evaluation_uses_the_logs_history_and_else_the_scorers(log):
    split = leave_last_out(log)
    scorer = FollowingItems(split.train)  # at test time it must see the validation item, too
    assert scorer.evaluate(split.test, k=1)["hr@1"] == pytest.approx(1 / 3)
    later = BehaviorLog.from_pandas(BEHAVIORS).take([3])
    assert later.history is None
    assert FollowingItems(log.take([0, 1, 2])).evaluate(later, k=1)["hr@1"] == 1


def test_diversity_reads_a_column_of_the_catalogue(scorer, log):
    split = leave_last_out(log)
    report = scorer.evaluate(split.test, k=2, filter_seen=False, diversity_by="category")
    # Newest items C, C and G are followed by D E, D E and H A: always one of each.
    assert report["diversity@2"] == 1
    assert report["coverage@2"] == 4 / 8
    scorer.catalogue = None
    with pytest.raises(ValueError, match="no catalogue"):
        scorer.evaluate(split.test, diversity_by="category")
