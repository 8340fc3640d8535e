"""From requests to alarms: a server records, the record is monitored."""

import datetime
import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tfrec_llm.cli import main
from tfrec_llm.errors import DataError
from tfrec_llm.monitoring import Limits, ServedLog, monitor
from tfrec_llm.serving import (
    ModelVersions,
    Recorder,
    ServerOptions,
    SQLiteHistories,
    UserKey,
    create_app,
)

EXAMPLES = Path(__file__).parents[2] / "examples" / "serving" / "monitoring"
HOSTILE = "<script>alert(1)</script>$\\frac{"


@pytest.fixture(scope="module")
def record(exported_shop, tmp_path_factory):
    """A folder that a server recorded, and the measures it had in the end."""
    folder = tmp_path_factory.mktemp("record")
    recorder = Recorder(folder, key=UserKey("secret"))
    app = create_app(
        ModelVersions(exported_shop.path.parent),
        SQLiteHistories(":memory:"),
        ServerOptions(timeout=30.0),
        recorder=recorder,
    )
    items = exported_shop.vocabulary.ids.to_pylist()
    rng = np.random.default_rng(0)
    with TestClient(app) as client:
        for number in range(40):
            user = f"private-{number % 8}"
            for _ in range(3):
                item = items[int(rng.integers(len(items)))] if number else HOSTILE
                event = {"user": user, "item": item, "behavior": "view"}
                assert client.post("/v1/events", json={"events": [event]}).status_code == 200
                shown = client.post("/v1/recommend", json={"user": user, "k": 5}).json()["items"]
            bought = {"user": user, "item": shown[0]["item"], "behavior": "buy"}
            client.post("/v1/events", json={"events": [bought]})
        client.post("/v1/recommend", json={"user": "private-gone"})
        client.post("/v1/events", json={"events": [{"user": "private-gone", "item": "x"}]})
        recorder.flush()
        client.delete("/v1/users/private-gone")
        measures = client.get("/metrics").text
    return folder, measures


@pytest.fixture(scope="module")
def report(record, exported_shop):
    served = ServedLog.read(record[0])
    return monitor(served, exported_shop, conversions=["buy"], bucket="0.1s")


def test_a_server_records_what_it_recommends_and_what_comes_of_it(record, report, exported_shop):
    served = ServedLog.read(record[0])
    assert (len(served.lists), len(served.events)) == (120, 160)
    assert UserKey("secret").of("private-gone") not in served.lists["user"].to_pylist()
    assert served.lists["version"].unique().to_pylist() == [1]
    assert set(served.lists["source"].to_pylist()) == {"model"}
    assert "private" not in str(served.lists.to_pydict())
    quality = report.quality
    assert quality["conversion"] >= 40 / 600
    assert 0 < quality["hit_rate"] < 1
    assert quality["unknown_events"] == pytest.approx(3 / 160)
    assert quality["p99_milliseconds"] > 0
    assert report.versions[1]["lists"] == 120


def test_drift_of_all_that_a_snapshot_holds_is_measured(report):
    names = [drift.name for drift in report.drifts]
    assert names[:4] == ["items", "kind", "history length", "best score"]
    assert [name for name in names if name.startswith("embedding")] == [
        f"embedding {number}" for number in range(1, 9)
    ]
    assert all(0 <= drift.jensen_shannon <= 1 for drift in report.drifts)


def test_traffic_that_is_unlike_training_rings_the_alarm(record, exported_shop):
    served = ServedLog.read(record[0])
    turned = ["hats-0"] * len(served.events)
    events = served.events.set_column(2, "item", [turned])
    names = [alarm.name for alarm in monitor(ServedLog(served.lists, events), exported_shop).alarms]
    assert {"drift of items", "drift of kind"} <= set(names)
    calm = monitor(served, exported_shop, limits=Limits(drift=50.0))
    assert not [alarm for alarm in calm.alarms if alarm.name.startswith("drift")]
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    empty = monitor(served, exported_shop, until=later)
    assert empty.quality["lists"] == 0
    assert empty.drifts == []
    with pytest.raises(DataError, match="no duration"):
        monitor(served, exported_shop, window="soon")
    assert "no alarm" in str(monitor(served, exported_shop, limits=Limits(drift=50)))


def test_the_page_is_one_file_and_ids_cannot_act_in_it(report, tmp_path, record, exported_shop):
    served = ServedLog.read(record[0])
    first = report.drifts[0]
    vars(first)["labels"] = (HOSTILE, *first.labels[1:])
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 5, "items, kind, history length, best score, and the series"
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert f"{len(served.lists)}" in page


def test_the_command_writes_page_measures_and_numbers(record, exported_shop, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("html", "prometheus", "json")}
    options = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    command = ["monitor", str(record[0]), str(exported_shop.path.parent), *options]
    assert main([*command, "--max-drift", "0.0001"]) == 3
    assert "ALARM" in capsys.readouterr().out
    assert "<img" in files["html"].read_text()
    found = json.loads(files["json"].read_text())
    assert found["alarms"]
    families = {
        one.name: one for one in text_string_to_metric_families(files["prometheus"].read_text())
    }
    alarms = families["tfrec_monitor_alarms"].samples[0].value
    assert alarms == len(found["alarms"])
    of = {sample.labels["of"] for sample in families["tfrec_monitor_drift_psi"].samples}
    assert of == set(found["drift"])
    assert main(["monitor", str(tmp_path), str(exported_shop.path)]) == 1
    assert "no record of a server" in capsys.readouterr().err
    assert main([*command, "--until", "soon"]) == 2


@pytest.mark.skipif(not EXAMPLES.exists(), reason="examples/ is not beside the tests")
def test_alert_rules_and_dashboard_ask_for_measures_that_there_are(record, report, tmp_path):
    report.to_prometheus(tmp_path / "tfrec.prom")
    text = record[1] + (tmp_path / "tfrec.prom").read_text()
    there = {sample.name for one in text_string_to_metric_families(text) for sample in one.samples}
    rules = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())
    board = json.loads((EXAMPLES / "dashboard.json").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"\btfrec_\w+", expression)}
    assert names <= there, names - there
    assert len(names) > 10
    labels = {
        (sample.name, label, value)
        for one in text_string_to_metric_families(text)
        for sample in one.samples
        for label, value in sample.labels.items()
    }
    for expression in asked:
        for name, inside in re.findall(r"\b(tfrec_\w+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)=", inside):
                assert any(one[:2] == (name, label) for one in labels), (name, label)
