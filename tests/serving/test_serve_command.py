import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from tfrec_llm.cli import main

pytest.importorskip("fastapi")


@pytest.fixture
def server(exported_shop, tmp_path):
    """Runs `tfrec-llm serve`, and gives the process and how to ask it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    (tmp_path / "keys.txt").write_text("the-key\n")
    command = [
        *(sys.executable, "-c", "from tfrec_llm.cli import main; raise SystemExit(main())"),
        *("serve", str(exported_shop.path.parent), "--port", str(port), "--timeout", "30"),
        *("--store", str(tmp_path / "histories.sqlite"), "--api-keys", str(tmp_path / "keys.txt")),
    ]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)

    def ask(path, body=None, method=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"content-type": "application/json", "x-api-key": "the-key"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    ask.address = "127.0.0.1", port
    for _ in range(600):
        try:
            ask("/readyz")
            break
        except urllib.error.URLError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
    yield process, ask
    process.kill()
    process.wait()


def test_the_command_serves_stops_gracefully_and_keeps_events(server, tmp_path):
    process, ask = server
    event = {"user": "private-anna", "item": "tops-1", "id": "e1"}
    assert ask("/v1/events", {"events": [event]})["accepted"] == 1
    assert ask("/v1/recommend", {"user": "private-anna"})["source"] == "model"
    answers = []
    asked = [
        threading.Thread(target=lambda: answers.append(ask("/v1/recommend", {"user": "x"})))
        for _ in range(4)
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    with socket.create_connection(ask.address) as connection:
        connection.sendall(b"GET /v1/users/private-anna NONSENSE\r\n\r\n")
        assert b" 400 " in connection.recv(1000)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) in (0, -signal.SIGTERM)
    assert [answer["source"] for answer in answers] == ["popularity"] * 4
    lines = (tmp_path / "log").read_text().splitlines()
    assert "private" not in "".join(lines)
    assert "the-key" not in "".join(lines)
    told = [json.loads(line) for line in lines if line.startswith("{")]
    assert [one.get("route") for one in told].count("/v1/recommend") == 5
    assert {"warning", "info"} == {one["level"] for one in told}
    from tfrec_llm.serving import SQLiteHistories

    store = SQLiteHistories(tmp_path / "histories.sqlite")
    assert [one.item for one in store.newest(["private-anna"], 9)["private-anna"]] == ["tops-1"]


def test_a_folder_without_a_model_is_told(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 1
    assert "There is no version of a model" in capsys.readouterr().err
    (tmp_path / "keys.txt").write_text("\n")
    assert main(["serve", str(tmp_path), "--api-keys", str(tmp_path / "keys.txt")]) == 1
    assert "names no key" in capsys.readouterr().err


def test_how_versions_of_new_items_are_exported_is_checked_at_the_start(tmp_path, capsys):
    files = ["--recommender", "shop.tfrec", "--catalogue", "items.parquet"]
    for options in (["--export-options", "--exclude A13 --such"], ["--export-options=-k 0"]):
        assert main(["serve", str(tmp_path), *files, *options]) == 2
        assert "options of tfrec-llm export" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), *options]) == 2
    assert "goes with --catalogue" in capsys.readouterr().err


def test_a_record_needs_a_key_by_which_users_can_be_erased_later(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TFREC_LOG_KEY", raising=False)
    assert main(["serve", str(tmp_path), "--record", str(tmp_path / "record")]) == 2
    assert "TFREC_LOG_KEY" in capsys.readouterr().err
    assert not (tmp_path / "record").exists()
