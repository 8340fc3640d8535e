import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfrec_llm as tr
from tfrec_llm.data import KCore, NextBehavior, Shards, UserSequences, Vocabulary
from tfrec_llm.errors import DataFileError, EmptyLogError, MixedTypeError, NullValueError


@pytest.fixture(scope="module")
def log():
    return tr.data.ShopSimulator(300, 60, seed=2).simulate()


@pytest.fixture(scope="module")
def shards(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    for number, first in enumerate(range(0, len(log), 700)):
        pq.write_table(log.table.slice(first, 700), folder / f"{number:02}.parquet")
    return Shards.write(folder, folder.parent / "shards", num_shards=5, behavior=None)


def assert_equal(found: UserSequences, expected: UserSequences) -> None:
    assert set(found.user_ids.to_pylist()) == set(expected.user_ids.to_pylist())
    found = found.select(expected.user_ids)
    for name in ("items", "offsets", "times"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_shards_hold_what_one_log_in_memory_gives(shards, log):
    assert shards.vocabulary == Vocabulary.fit(log.item)
    assert shards.num_behaviors == len(log)
    assert_equal(shards.read(range(5)), UserSequences.from_log(log, shards.vocabulary))
    # A fifth of the users each, about.
    assert min(len(each) for each in shards.lengths) > 30
    for number, lengths in enumerate(shards.lengths):
        np.testing.assert_array_equal(shards.read([number]).lengths, lengths)


def test_the_files_that_rows_came_in_make_no_difference(shards, log, tmp_path):
    whole = Shards.write([log.table], tmp_path / "whole", num_shards=5)
    assert whole.vocabulary == shards.vocabulary
    for number in range(5):
        np.testing.assert_array_equal(whole.read([number]).items, shards.read([number]).items)


def test_kinds_of_behaviour_are_numbered_as_in_a_log(tmp_path):
    kinds = pa.array((["view"] * 5 + ["cart", "buy", "cart"]) * 10)
    table = pa.table(
        {
            "user": np.arange(80) % 7,
            "item": [f"i{n % 11}" for n in range(80)],
            "time": np.arange(80)[::-1],
            "behavior": kinds,
        }
    )
    shards = Shards.write(
        [table.slice(0, 33), table.slice(33)], tmp_path / "s", behavior="behavior"
    )
    log = tr.data.BehaviorLog.from_arrow(table, behavior="behavior")
    expected = UserSequences.from_log(log, shards.vocabulary)
    found = shards.read(range(len(shards)))
    assert found.behavior_vocabulary == expected.behavior_vocabulary == ("view", "cart", "buy")
    np.testing.assert_array_equal(found.select(expected.user_ids).behaviors, expected.behaviors)


def test_the_core_is_that_of_cleaning_in_memory(log, tmp_path):
    kept = tr.data.clean(log, [KCore(9, 20)]).log
    assert 0 < len(kept) < len(log)
    shards = Shards.write([log.table], tmp_path / "core", num_shards=4, core=KCore(9, 20))
    assert_equal(shards.read(range(4)), UserSequences.from_log(kept, shards.vocabulary))
    expected = Vocabulary.fit(kept.item)
    assert dict(
        zip(shards.vocabulary.ids.to_pylist(), shards.vocabulary.counts[3:], strict=True)
    ) == dict(zip(expected.ids.to_pylist(), expected.counts[3:], strict=True))


def test_rare_items_are_unknown_and_users_kept_apart_are_not_trained_on(log, tmp_path):
    shards = Shards.write([log.table], tmp_path / "s", num_shards=3, min_count=20, validation=0.2)
    assert shards.vocabulary.counts[3:].min() >= 20
    held_out = shards.validation
    trained = set(shards.read(range(3)).user_ids.to_pylist())
    apart = set(held_out.user.to_pylist())
    assert 30 < len(apart) < 90
    assert not apart & trained
    assert len(apart) + len(trained) == pytest.approx(300, abs=10)  # some did but one thing
    assert held_out.history is not None


def test_wrong_input_is_told_and_what_was_there_stays(shards, log, tmp_path):
    folder = tmp_path / "shards"
    Shards.write([log.table], folder, num_shards=2)
    missing = log.table.set_column(0, "user", pa.nulls(len(log), pa.int64()))
    text = log.table.set_column(1, "item", log.item.cast(pa.string()))
    for wrong, error, words in (
        ([missing], NullValueError, "lack their user"),
        ([log.table, text], MixedTypeError, 'ids="string"'),
        ([], EmptyLogError, "no rows"),
        (tmp_path / "nowhere", DataFileError, "no file or folder"),
    ):
        with pytest.raises(error, match=words):
            Shards.write(wrong, folder, num_shards=2)
    assert len(Shards.open(folder).read([0, 1]).items) == len(log)
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    with pytest.raises(EmptyLogError, match="kept apart"):
        _ = Shards.open(folder).validation
    (folder / "part-00001.parquet").write_bytes(b"half")
    with pytest.raises(DataFileError, match="part-00001"):
        Shards.open(folder).read([1])
    with pytest.raises(DataFileError, match="whole shards"):
        Shards.open(tmp_path)


def batches(shards, **options):
    options = {"max_length": 10, "batch_size": 3, "buffer": 800} | options
    return tr.data.ShardedBatches(shards, NextBehavior(), **options)


def targets(every):
    return np.sort(np.concatenate([t[t > 0] for _, t in every]))


def test_an_epoch_reads_every_behaviour_once_in_another_order_each_time(shards, log):
    streamed = batches(shards)
    assert len(streamed._blocks) > 2
    sequences = shards.read(range(5))
    whole = tr.data.next_batches(sequences, max_length=10, batch_size=3)
    first = [streamed[index] for index in range(len(streamed))]
    np.testing.assert_array_equal(targets(first), targets([whole[i] for i in range(len(whole))]))
    assert streamed.num_behaviors == whole.num_behaviors
    streamed.on_epoch_end()
    second = [streamed[index] for index in range(len(streamed))]
    np.testing.assert_array_equal(targets(first), targets(second))
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    again = batches(shards)
    again.set_epoch(1)
    for index, (inputs, _) in enumerate(second):
        np.testing.assert_array_equal(again[index][0]["items"], inputs["items"])


def test_workers_share_the_shards_and_take_equally_many_steps(shards):
    workers = [batches(shards, worker=number, num_workers=2, row_length=16) for number in range(2)]
    assert len(workers[0]) == len(workers[1])
    alone = batches(shards, row_length=16)
    read = [each.num_behaviors for each in workers]
    assert min(read) > 0
    assert sum(read) == alone.num_behaviors
    for each in workers:
        assert all(len(each[index][1]) for index in range(len(each)))
    with pytest.raises(ValueError, match="5 shards"):
        batches(shards, num_workers=6)


def test_a_random_order_of_batches_is_refused(shards):
    streamed = batches(shards)
    for index in [0, len(streamed) - 1] * 2:
        streamed[index]
    with pytest.raises(ValueError, match="shuffle=False"):
        streamed[0]


def test_a_recommender_trains_on_shards_as_on_the_log(shards, log, tmp_path):
    options = {"emb_dim": 8, "num_layers": 1, "max_length": 10, "precision": "float32"}
    kept_apart = Shards.write([log.table], tmp_path / "s", num_shards=4, validation=0.2)
    rec = tr.Recommender(**options, learning_rate=5e-3)
    rec.fit(kept_apart, validation=kept_apart.validation, epochs=6, verbose=0)
    assert rec.curve[-1]["loss"] < rec.curve[0]["loss"]
    assert max(row["val_hr@10"] for row in rec.curve) > 1.2 * 10 / 60
    items = kept_apart.vocabulary.ids.to_pylist()
    assert len(rec.recommend(histories=[items[:3]], k=5)) == 5
    rec.save(tmp_path / "rec")
    again = tr.Recommender.load(tmp_path / "rec")
    again.fit(kept_apart, epochs=1, warm_start=True, verbose=0)
    with pytest.raises(ValueError, match="does not go with shards"):
        tr.Recommender(**options, min_count=3).fit(kept_apart, epochs=1, verbose=0)
