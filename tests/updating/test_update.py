import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfrec_llm as tr
from tfrec_llm.cli import main
from tfrec_llm.data import BehaviorLog, ChangingShop
from tfrec_llm.errors import DataError, EmptyLogError, NotFittedError
from tfrec_llm.evaluation import Comparison, EvaluatedUsers, Report
from tfrec_llm.serving import ExportedModel
from tfrec_llm.updating import update
from tfrec_llm.updating.challenge import judge
from tfrec_llm.updating.new_items import place_new_items
from tfrec_llm.updating.window import UpdateWindow, known_log

SMALL = {"emb_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 16, "learning_rate": 0.01}
# Less than a hundredth: whatever comes of one epoch is tolerated.
EASY = {"tolerance": 0.9, "filter_seen": False}


@pytest.fixture(scope="module")
def year():
    """A log of 60 days in which items arrive, and the days of its rows."""
    shop = ChangingShop(150, 40, days=60, visits=8, new_items=0.4, seed=1)
    log = shop.simulate()
    return log, shop.days_of(log)


@pytest.fixture(scope="module")
def champion(year):
    log, days = year
    return tr.Recommender(**SMALL).fit(log.take(days < 40), epochs=6, verbose=0)


@pytest.fixture(scope="module")
def updated(year, champion):
    log, days = year
    before = [weights.copy() for weights in champion.model.get_weights()]
    vocabulary, histories = champion.vocabulary, champion.histories
    found = update(champion, log.take(days < 50), epochs=2, **EASY)
    assert all(map(np.array_equal, before, champion.model.get_weights())), "it stays as it was"
    assert (champion.vocabulary, champion.histories) == (vocabulary, histories)
    return found


def test_an_accepted_challenger_knows_all_there_is(year, champion, updated):
    log, days = year
    assert updated.accepted, updated.reason
    assert updated.published is None
    known = log.take(days < 50)
    ids = updated.recommender.vocabulary.ids.to_pylist()
    assert set(known.item.to_pylist()) <= set(ids)
    assert updated.new_items == len(ids) - len(champion.vocabulary) > 1
    assert updated.recommender.histories.lengths.sum() == len(known)
    assert updated.recommender.vocabulary.counts.sum() == len(known)
    assert updated.comparison["challenger"]["ndcg@10"] > 0.2
    assert "accepted" in str(updated)


def test_a_training_that_diverges_is_refused(champion, year, tmp_path):
    log, days = year
    broken = update(
        champion, log.take(days < 50), epochs=1, learning_rate=1e39, export_to=tmp_path / "shop"
    )
    assert not broken.accepted
    assert broken.recommender is champion
    assert broken.published is None
    assert "diverged" in broken.reason
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize(
    ("change", "users", "tolerance", "accepted", "words"),
    [
        (0.05, 2000, 0.0, True, "none of it below"),
        (-0.002, 2000, 0.02, True, "none of it below"),
        (-0.002, 2000, 0.0, False, "may lie below"),
        (0.0, 40, 0.02, False, "40 users tell no more"),
        (-0.1, 2000, 0.02, False, "worse than"),
    ],
)
def test_the_interval_of_the_lead_decides(change, users, tolerance, accepted, words):
    scores = np.linspace(0.2, 0.8, users)
    scattered = np.tile([0.1, -0.1], users // 2)
    evaluated = EvaluatedUsers(users, 100, users, 0, filter_seen=False)
    reports = {
        name: Report.from_users({"ndcg@10": values}, evaluated)
        for name, values in (
            ("champion", scores),
            ("challenger", scores + change + scattered),
        )
    }
    comparison = Comparison(reports)
    lead = comparison.difference("challenger", "champion", "ndcg@10")
    found, reason = judge(comparison, lead, "ndcg@10", tolerance)
    assert found == accepted
    assert words in reason


def test_nothing_of_the_test_is_learned_and_only_new_rows_count(year, champion):
    log, days = year
    known = known_log(champion.histories, champion.vocabulary, log)
    assert sorted(known.table.to_pylist(), key=str) == sorted(
        log.take(days < 40).table.to_pylist(), key=str
    )
    options = {"since": None, "hold_out": 0.25, "replay": 0.0, "seed": 0}
    window = UpdateWindow.of(known, log.take(days >= 30), **options)
    assert len(window.everything) == len(log), "rows known before are passed over"
    assert window.train.times().max() < window.cut <= window.test.times().min()
    assert window.test.num_users == len(window.test)
    active = set(log.take((days >= 40) & (log.times() < window.cut)).user.to_pylist())
    assert set(window.train.user.to_pylist()) == active
    replayed = UpdateWindow.of(known, log, **options | {"replay": 0.1})
    others = set(replayed.train.user.to_pylist()) - active
    free = len(set(log.take(log.times() < window.cut).user.to_pylist()) - active)
    assert len(others) == min(free, round(0.1 * len(active)))


def test_new_items_begin_where_their_neighbours_are(champion, year):
    log, _ = year
    rec = champion.copy()
    first = rec.vocabulary.size
    catalogue = log.catalogue
    known = rec.vocabulary.ids.to_pylist()
    alike = next(
        one
        for one in range(1, 41)
        if one not in known
        and catalogue.lookup([one])["category"][0].as_py()
        in catalogue.lookup(known)["category"].to_pylist()
    )
    rec.extend([1001, alike, 1002], catalogue=catalogue)
    before = rec.model.encoder.item_embedding.table.numpy().copy()
    beside = BehaviorLog.from_arrow(
        pa.table({"user": [1, 1, 1], "item": [known[0], 1001, known[1]], "time": [1, 2, 3]})
    )
    assert place_new_items(rec, rec.sequences(beside), first) == 2
    table = rec.model.encoder.item_embedding.table.numpy()
    np.testing.assert_allclose(table[first], before[3:5].mean(axis=0), rtol=1e-5)
    kinds = catalogue.lookup(known)["category"].to_pylist()
    own = catalogue.lookup([alike])["category"][0].as_py()
    rows = [3 + place for place, kind in enumerate(kinds) if kind == own]
    np.testing.assert_allclose(table[first + 1], before[rows].mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(table[first + 2], before[first + 2])
    np.testing.assert_array_equal(table[:first], before[:first])


def test_moments_go_on_over_saving_and_growing(champion, updated, tmp_path):
    champion.save(tmp_path / "shop")
    loaded = tr.Recommender.load(tmp_path / "shop")
    assert all(map(np.array_equal, loaded.moments, champion.moments))
    after = updated.recommender
    assert int(after.moments[0]) > int(champion.moments[0]) > 0
    rows = [moment.shape[0] for moment in after.moments if moment.ndim == 2]
    # Items that were held out have no moments yet: they join at the end.
    assert max(rows) > champion.vocabulary.size


def test_what_cannot_be_updated_is_told(champion, year):
    log, days = year
    with pytest.raises(EmptyLogError, match="nothing newer"):
        update(champion, log.take(days < 40))
    with pytest.raises(EmptyLogError, match="none is left"):
        update(champion, log.take(np.flatnonzero(days >= 40)[:1]))
    with pytest.raises(NotFittedError, match="no champion"):
        update(tr.Recommender(**SMALL), log)
    with pytest.raises(ValueError, match="hold_out"):
        update(champion, log, hold_out=1.0)
    nameless = champion.copy()
    nameless.histories = champion.histories.take([0, 0])
    with pytest.raises(DataError, match="names and times"):
        update(nameless, log)


def test_the_command_publishes_and_goes_on_from_there(year, champion, tmp_path, capsys):
    log, days = year
    week, model = str(tmp_path / "week.parquet"), str(tmp_path / "shop.tfrec")
    served = str(tmp_path / "serving" / "shop")
    log.take((days >= 40) & (days < 50)).to_parquet(week)
    champion.save(model)
    users = log.user.unique().to_pylist()
    profiles = pa.table({"who": users, "country": np.resize(["PL", "CZ"], len(users))})
    pq.write_table(profiles, tmp_path / "users.parquet")
    out_of_stock = champion.vocabulary.ids[0].as_py()
    command = ["update", model, week, "-o", served, "--epochs", "1", "--tolerance", "0.9"]
    command += ["--profiles", str(tmp_path / "users.parquet"), "--profiles-key", "who"]
    command += ["--exclude", str(out_of_stock)]
    assert main(command) == 0
    assert "published as" in capsys.readouterr().out
    recommender = tr.Recommender.load(model)
    known = log.take(days < 50)
    assert recommender.histories.lengths.sum() == len(known)
    exported = ExportedModel(f"{served}/1")
    assert exported.vocabulary == recommender.vocabulary
    cold = exported.cold_start.recommend(1000, profile={"country": "PL"})
    assert cold.source == "profile"
    assert len(cold.items) == len(exported.vocabulary) - 1
    assert out_of_stock not in cold.items
    new = log.times()[days >= 40].min()
    assert exported.snapshot.item_counts.sum() == np.count_nonzero(known.times() >= new)
    record = json.loads((tmp_path / "shop.tfrec" / "training.json").read_text())
    assert new < record["trained_until"] < known.times().max()
    assert main(command) == 1
    assert "nothing newer" in capsys.readouterr().err
    assert main([*command, "--hold-out", "3"]) == 2
