import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrec_llm.errors import DataFileError, StoreError
from tfrec_llm.monitoring import ServedLog
from tfrec_llm.serving import Event, Recorder, TrainingSnapshot, UserKey

LIST = {
    "user": "anna",
    "version": 1,
    "source": "model",
    "seconds": 0.01,
    "history": ["a", 7],
    "behaviors": ["view", ""],
    "items": ["b", "c"],
    "scores": [2.0, 1.0],
}


def test_files_are_written_behind_requests_and_name_nobody(tmp_path):
    written = []
    recorder = Recorder(tmp_path, key=UserKey("secret"), max_rows=3)
    recorder.observe = lambda outcome, rows: written.append((outcome, rows))
    for number in range(3):
        recorder.add_list(**LIST)
        recorder.add_events([Event(str(number), "anna", "b", 1e9 + number, "view")])
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("lists/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.glob("lists/*.parquet")), "a full file is written without being asked for"
    recorder.add_list(**LIST | {"user": None, "history": None, "behaviors": None, "scores": [None]})
    recorder.close()
    served = ServedLog.read(tmp_path)
    assert (len(served.lists), len(served.events)) == (4, 3)
    assert set(served.lists["user"].to_pylist()) == {UserKey("secret").of("anna"), None}
    assert b"anna" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    first = served.lists.to_pylist()[0]
    assert (first["history"], first["history_length"], first["items"]) == (
        ["a", "7"],
        2,
        ["b", "c"],
    )
    assert sum(rows for outcome, rows in written if outcome == "written") == 7
    assert not list(tmp_path.rglob(".*"))


def test_a_user_is_erased_from_what_is_written_and_what_waits(tmp_path):
    recorder = Recorder(tmp_path)
    for user in ("anna", "berta"):
        recorder.add_list(**LIST | {"user": user})
        recorder.add_events([Event("e", user, "b", 1e9)])
    recorder.flush()
    recorder.add_list(**LIST)
    assert recorder.erase("anna") == 3
    assert recorder.erase("anna") == 0
    recorder.close()
    served = ServedLog.read(tmp_path)
    assert (len(served.lists), len(served.events)) == (1, 1)


def test_a_user_who_could_not_be_erased_is_told_of_and_gone_from_the_other_files(tmp_path):
    damaged = tmp_path / "events" / "20200101T000000.000000-a.parquet"
    recorder = Recorder(tmp_path)
    recorder.add_list(**LIST)
    damaged.write_bytes(b"PAR1 not really")
    with pytest.raises(StoreError, match="20200101"):
        recorder.erase("anna")
    damaged.unlink()
    assert recorder.erase("anna") == 0
    recorder.close()


def test_old_files_are_removed_and_a_full_disk_loses_rows_not_requests(tmp_path, monkeypatch):
    dropped = []
    recorder = Recorder(tmp_path, keep_days=1, max_seconds=0.01)
    recorder.observe = lambda outcome, rows: dropped.append((outcome, rows))
    table = pa.table({"user": ["x"]})
    pq.write_table(table, tmp_path / "events" / "20200101T000000.000000-old.parquet")
    deadline = time.monotonic() + 20
    while list(tmp_path.glob("events/2020*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(tmp_path.glob("events/2020*"))
    monkeypatch.setattr(pq, "write_table", _full)
    recorder.add_list(**LIST)
    recorder.flush()
    recorder.close()
    assert ("dropped", 1) in dropped
    with pytest.raises(ValueError, match="above 0"):
        Recorder(tmp_path, max_rows=0)


def _full(*arguments, **options):
    raise OSError(28, "No space left on device")


def test_what_is_no_record_and_what_is_damaged_is_told(tmp_path):
    with pytest.raises(DataFileError, match="no record of a server"):
        ServedLog.read(tmp_path)
    Recorder(tmp_path).close()
    with pytest.raises(ValueError, match="holds nothing"):
        ServedLog.read(tmp_path)
    (tmp_path / "lists" / "20990101T000000.000000-x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataFileError, match=r"20990101.*cannot be read"):
        ServedLog.read(tmp_path)
    assert os.listdir(tmp_path / "events") == []


def test_a_snapshot_is_kept_with_an_export_and_holds_what_training_was_like(exported_shop, shop):
    snapshot = exported_shop.snapshot
    assert snapshot.item_counts.tolist() == shop.vocabulary.counts[3:].tolist()
    kinds = snapshot.category_counts(exported_shop.vocabulary, exported_shop.catalogue)["kind"]
    assert sum(kinds.values()) == snapshot.item_counts.sum()
    assert set(kinds) == {"tops", "skirts", "hats"}
    assert snapshot.lengths.max() == shop.histories.lengths.max() - 1
    assert len(snapshot.projections) == len(snapshot.directions) == 8


def test_a_snapshot_of_the_newest_behaviours_counts_these_alone(shop, tmp_path):
    since = int(shop.histories.times.max())
    snapshot = TrainingSnapshot.of(shop, since=since)
    assert snapshot.item_counts.sum() == (shop.histories.times >= since).sum()
    snapshot.save(tmp_path / "snapshot.npz")
    loaded = TrainingSnapshot.load(tmp_path / "snapshot.npz")
    assert loaded.item_counts.tolist() == snapshot.item_counts.tolist()
    (tmp_path / "snapshot.npz").write_bytes(b"PK")
    with pytest.raises(DataFileError, match="holds no snapshot"):
        TrainingSnapshot.load(tmp_path / "snapshot.npz")
