import asyncio
import json
import logging
import shutil
import threading
import time

import numpy as np
import pytest

pytest.importorskip("fastapi")
import httpx2
from serving_shop import KINDS, shop_profiles
from starlette.testclient import TestClient

import tfrec_llm as tr
from tfrec_llm.errors import SavedModelError, StoreError
from tfrec_llm.serving import (
    Event,
    ExportedModel,
    ModelVersions,
    ServerOptions,
    SQLiteHistories,
    create_app,
    export_model,
)
from tfrec_llm.serving.json_log import JsonLines

PREDICT = "/v1/models/shop:predict"


@pytest.fixture(scope="module")
def versions(exported_shop):
    return ModelVersions(exported_shop.path.parent)


@pytest.fixture(scope="module")
def client(versions):
    with TestClient(create_app(versions, SQLiteHistories(":memory:"))) as client:
        yield client


@pytest.fixture
def served(versions):
    """Makes clients of servers of the same model with other options and stores."""
    opened = []

    def make(store=None, **options):
        app = create_app(versions, store or SQLiteHistories(":memory:"), ServerOptions(**options))
        opened.append(TestClient(app))
        return opened[-1].__enter__()

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def shown(response):
    assert response.status_code == 200, response.text
    return [one["item"] for one in response.json()["items"]]


def test_an_event_just_posted_changes_the_next_list(client, exported_shop):
    asked = {"user": "anna", "k": 5}
    before = client.post("/v1/recommend", json=asked)
    assert before.json()["source"] == "popularity"
    seen = shown(before)[0]
    event = {"user": "anna", "item": seen, "behavior": "view", "id": "e1"}
    for accepted in (1, 0):
        kept = client.post("/v1/events", json={"events": [event]})
        assert kept.json() == {"accepted": accepted, "duplicates": 1 - accepted}
    after = client.post("/v1/recommend", json=asked)
    assert seen not in shown(after)
    expected = exported_shop.recommend([[seen]], k=5, behaviors=[["view"]])[0]
    assert shown(after) == expected.items
    about = after.json()
    assert (about["source"], about["model"], about["version"]) == ("model", "shop", 1)
    assert seen in shown(client.post("/v1/recommend", json=asked | {"filter_seen": False, "k": 24}))


def test_a_history_sent_along_counts_in_place_of_the_one_kept(client, exported_shop):
    ids = exported_shop.vocabulary.ids.to_pylist()
    asked = {"user": "anna", "history": ids[3:6], "k": 4, "exclude": [ids[0], 17, "none such"]}
    expected = exported_shop.recommend([ids[3:6]], k=4, exclude=[ids[:1]])[0]
    response = client.post("/v1/recommend", json=asked).json()
    assert [one["item"] for one in response["items"]] == expected.items
    scores = [one["score"] for one in response["items"]]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    scored = client.post("/v1/score", json={"history": ids[3:6], "items": [*ids[:2], "new"]}).json()
    expected_scores = exported_shop.score([ids[3:6]], [ids[:2]])[0]
    assert [one["item"] for one in scored["items"]] == [*ids[:2], "new"]
    np.testing.assert_allclose([one["score"] for one in scored["items"][:2]], expected_scores, 1e-4)
    assert scored["items"][2]["score"] is None


def test_a_user_is_read_and_erased(client):
    events = [
        {"user": 7, "item": "tops-1", "time": 1764000000.5, "id": "a"},
        {"user": "7", "item": "hats-2", "time": "2025-01-01T00:00:00+01:00", "id": "b"},
    ]
    assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 2
    kept = client.get("/v1/users/7").json()
    assert [(one["item"], one["id"]) for one in kept["events"]] == [
        ("hats-2", "b"),
        ("tops-1", "a"),
    ]
    assert kept["events"][0]["time"] == "2024-12-31T23:00:00Z"
    assert client.post("/v1/recommend", json={"user": 7}).json()["source"] == "model"
    assert client.delete("/v1/users/7").json() == {"erased": 2}
    assert client.get("/v1/users/7").json() == {"user": "7", "events": []}
    assert client.post("/v1/recommend", json={"user": 7}).json()["source"] == "popularity"


def test_clients_of_tensorflow_serving_may_ask(client, exported_shop):
    ids = exported_shop.vocabulary.ids.to_pylist()
    expected = exported_shop.recommend([[ids[0]], []])
    columns = client.post(PREDICT, json={"inputs": {"history": [[ids[0]], [""]]}}).json()
    assert columns["outputs"]["items"] == [one.items for one in expected]
    rows = client.post(PREDICT, json={"instances": [{"history": [ids[0]]}, {"history": [""]}]})
    assert [row["items"] for row in rows.json()["predictions"]] == columns["outputs"]["items"]
    assert rows.json()["predictions"][1]["source"] == "popularity"
    short = client.post(PREDICT, json={"instances": [[ids[0]], [""]]})
    assert short.json() == rows.json()
    encoded = {"instances": [[{"b64": "dG9wcy0x"}], [{"b64": ""}]]}
    first = client.post("/v1/models/shop/versions/1:predict", json=encoded).json()["predictions"]
    assert first[0]["items"] == exported_shop.recommend([["tops-1"]])[0].items
    whole = {
        "signature_name": "recommend",
        "inputs": {
            "history": [[ids[0], ids[1]]],
            "behaviors": [["view", "buy"]],
            "exclude": [[]],
            "k": [3],
            "filter_seen": [False],
        },
    }
    found = client.post(PREDICT, json=whole).json()["outputs"]
    one = exported_shop.recommend([ids[:2]], k=3, behaviors=[["view", "buy"]], filter_seen=False)[0]
    assert found["items"] == [one.items]


def test_state_and_signatures_are_told_as_tensorflow_serving_tells_them(client):
    about = client.get("/v1/models/shop").json()
    expected = {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert about == {"model_version_status": [expected]}
    assert client.get("/v1/models/shop/versions/1").json() == about
    about = client.get("/v1/models/shop/metadata").json()
    assert about["model_spec"] == {"name": "shop", "signature_name": "", "version": "1"}
    signature = about["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    history = signature["inputs"]["history"]
    assert history["dtype"] == "DT_STRING"
    assert [one["size"] for one in history["tensor_shape"]["dim"]] == ["-1", "-1"]
    assert client.get("/v1/models/shop/versions/1/metadata").json() == about


WRONG = [
    ("POST", "/v1/recommend", {"user": "a", "k": 0}, 422),
    ("POST", "/v1/recommend", {"user": "a", "k": 10**30}, 422),
    ("POST", "/v1/recommend", {"user": "a", "k": 201}, 400),
    ("POST", "/v1/recommend", {"user": ""}, 422),
    ("POST", "/v1/recommend", {"user": None, "usr": "a"}, 422),
    ("POST", "/v1/recommend", {"user": {"a": 1}}, 422),
    ("POST", "/v1/recommend", {"history": ["a"], "behaviors": []}, 422),
    ("POST", "/v1/recommend", {"history": [1e300]}, 422),
    ("POST", "/v1/recommend", {"history": [10**40]}, 422),
    ("POST", "/v1/recommend", {"history": ["tops-1"] * 501}, 400),
    ("POST", "/v1/recommend", b'{"user": "\\ud800"}', 422),
    ("POST", "/v1/recommend", b"{", 422),
    ("POST", "/v1/recommend", b"[" * 100_000, (400, 422)),
    ("POST", "/v1/recommend", b"\xff\xfe", (400, 422)),
    ("POST", "/v1/score", {"user": "a", "items": []}, 422),
    ("POST", "/v1/events", {"events": []}, 422),
    ("POST", "/v1/events", {"events": [{"user": "a", "item": "b"}] * 1001}, 400),
    ("POST", "/v1/events", {"events": [{"user": "a", "item": "b", "time": 1e18}]}, (400, 422)),
    ("POST", "/v1/events", {"events": [{"user": "a", "item": "b", "time": "soon"}]}, 422),
    (
        "POST",
        "/v1/events",
        {"events": [{"user": "a", "item": "b", "time": "0001-01-01T00:00:00+14:00"}]},
        400,
    ),
    ("POST", "/v1/events", {"events": [{"user": "a", "item": "b" * 300}]}, 422),
    ("POST", "/v1/events", b"x" * 2_000_000, 413),
    ("GET", "/v1/users/" + "x" * 300, None, 422),
    ("POST", "/v1/models/other:predict", {"instances": [["a"]]}, 404),
    ("POST", "/v1/models/shop/versions/9:predict", {"instances": [["a"]]}, 404),
    ("GET", "/v1/models/shop/versions/9", None, 404),
    ("GET", "/v1/models/other", None, 404),
    ("GET", "/v1/nothing", None, 404),
    ("GET", "/v1/recommend", None, 405),
    ("POST", PREDICT, b"{", 400),
    ("POST", PREDICT, b"[" * 100_000, 400),
    ("POST", PREDICT, {"instances": []}, 400),
    ("POST", PREDICT, {"instances": [["a"]], "inputs": {}}, 400),
    ("POST", PREDICT, {"instances": [["a"], ["b", "c"]]}, 400),
    ("POST", PREDICT, {"instances": [[1]]}, 400),
    ("POST", PREDICT, {"instances": [[["a"]]]}, 400),
    ("POST", PREDICT, {"instances": [{"b64": "!"}]}, 400),
    ("POST", PREDICT, {"instances": [[{"b64": "!"}]]}, 400),
    ("POST", PREDICT, {"instances": [{"history": ["a"], "more": 1}]}, 400),
    ("POST", PREDICT, {"inputs": {"past": [["a"]]}}, 400),
    ("POST", PREDICT, {"signature_name": "none such", "instances": [["a"]]}, 400),
    ("POST", PREDICT, {"signature_name": "embed", "instances": [["a"]]}, 400),
    ("POST", PREDICT, {"instances": [["a"] * 501]}, 400),
    ("POST", PREDICT, {"instances": [["a"]] * 257}, 400),
    ("POST", PREDICT, b'{"instances": [["\\ud800"]]}', 400),
    ("PUT", "/v1/traffic", {"shares": {"1": 0.5}}, 400),
    ("PUT", "/v1/traffic", {"shares": {"9": 1.0}}, 400),
    ("PUT", "/v1/traffic", {"shares": {"one": 1.0}}, 422),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_gets_a_reason_and_never_a_server_error(client, number):
    method, path, body, codes = WRONG[number]
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    response = client.request(method, path, content=content, headers=headers)
    assert response.status_code in (codes if isinstance(codes, tuple) else (codes,)), response.text
    assert set(response.json()) == {"error"}
    assert 5 < len(response.json()["error"]) < 500


def test_no_route_but_the_probes_answers_without_a_key(served):
    client = served(api_keys=["first key", "second"])
    paths = client.app.openapi()["paths"]
    assert {"/v1/recommend", "/metrics", "/healthz", "/v1/models/{model}:predict"} <= set(paths)
    for path in [*paths, "/docs", "/openapi.json", "/nothing"]:
        for method in paths.get(path, ["get"]):
            response = client.request(method, path)
            assert (response.status_code == 401) == (path not in ("/healthz", "/readyz")), path
    for headers in (
        {"authorization": "Bearer first key"},
        {"x-api-key": "second"},
    ):
        assert client.get("/v1/models/shop", headers=headers).status_code == 200
    for headers in ({"authorization": "Basic second"}, {"x-api-key": "second "[:-2]}):
        refused = client.get("/v1/models/shop", headers=headers)
        assert refused.status_code == 401
        assert "API key" in refused.json()["error"]


def test_callers_that_ask_too_often_are_told_to_wait(served):
    client = served(rate=0.01, burst=3)
    codes = [client.get("/v1/traffic").status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    assert int(client.get("/v1/traffic").headers["retry-after"]) > 10
    assert client.get("/healthz").status_code == 200


def test_the_log_tells_what_happened_but_never_who_and_with_which_key(served, caplog):
    caplog.set_level(logging.INFO)
    client = served(api_keys=["secret-key"], log_key="x")
    headers = {"authorization": "Bearer secret-key"}
    event = {"user": "private-anna", "item": "tops-1", "id": "private-event"}
    client.post("/v1/events", json={"events": [event]}, headers=headers)
    for _ in range(2):
        client.post("/v1/recommend", json={"user": "private-anna"}, headers=headers)
    client.get("/v1/users/private-anna", headers=headers)
    client.get("/v1/users/private-anna", headers={"x-api-key": "secret-kex"})
    client.get("/private-anna", headers=headers)
    client.post("/v1/recommend", json={"user": "private-anna", "k": "private"}, headers=headers)
    lines = [
        json.loads(JsonLines().format(record))
        for record in caplog.records
        if record.name.startswith("tfrec_llm")
    ]
    assert not any("private" in json.dumps(line) or "secret" in json.dumps(line) for line in lines)
    lines = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in lines] == [200, 200, 200, 200, 401, 404, 422]
    listed = lines[1]
    assert (listed["route"], listed["source"]) == ("/v1/recommend", "model")
    assert listed["user"] == lines[2]["user"] == lines[3]["user"]
    assert lines[3]["route"] == "/v1/users/{user}"


def test_measures_are_there_for_prometheus(served):
    client = served()
    # What did not happen yet is there as well, so that rules see that it does not.
    text = client.get("/metrics").text
    for line in (
        'tfrec_recommendations_total{source="fallback",version="1"} 0.0',
        'tfrec_events_total{outcome="accepted"} 0.0',
        'tfrec_recorded_rows_total{outcome="dropped"} 0.0',
    ):
        assert line in text
    client.post("/v1/recommend", json={"user": "a"})
    client.post("/v1/events", json={"events": [{"user": "a", "item": "tops-1"}]})
    text = client.get("/metrics").text
    for line in (
        'tfrec_recommendations_total{source="popularity",version="1"} 1.0',
        'tfrec_events_total{outcome="accepted"} 1.0',
        'tfrec_version_traffic_ratio{version="1"} 1.0',
        'route="/v1/recommend",status="200"',
        "tfrec_batch_size_count 1.0",
    ):
        assert line in text


class Slow(SQLiteHistories):
    def newest(self, users, count, **options):
        time.sleep(0.4)
        return super().newest(users, count, **options)


class Away(SQLiteHistories):
    away = True

    def newest(self, users, count, **options):
        if self.away:
            raise StoreError("away")
        return super().newest(users, count, **options)

    def add(self, events):
        if self.away:
            raise StoreError("away")
        return super().add(events)


def test_a_list_that_takes_too_long_is_made_of_what_is_popular(served, exported_shop):
    client = served(Slow(":memory:"), timeout=0.05)
    popular = exported_shop.cold_start.recommend(11).items
    response = client.post("/v1/recommend", json={"user": "anna", "exclude": popular[:1]})
    assert shown(response) == popular[1:]
    assert response.json()["source"] == "fallback"
    scored = client.post("/v1/score", json={"user": "anna", "items": [popular[0], "none such"]})
    assert scored.json()["items"][1]["score"] is None
    assert scored.json()["source"] == "fallback"


def test_without_its_store_the_server_degrades_and_recovers_by_itself(served, exported_shop):
    store = Away(":memory:")
    client = served(store)
    ids = exported_shop.vocabulary.ids.to_pylist()
    events = {"events": [{"user": "anna", "item": ids[0], "id": "1"}]}
    refused = client.post("/v1/events", json=events)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert client.post("/v1/recommend", json={"user": "anna"}).json()["source"] == "fallback"
    given = client.post("/v1/recommend", json={"user": "anna", "history": ids[:1]})
    assert given.json()["source"] == "model"
    store.away = False
    assert client.post("/v1/events", json=events).json()["accepted"] == 1
    assert client.post("/v1/recommend", json={"user": "anna"}).json()["source"] == "model"


def test_requests_in_flight_are_answered_by_few_calls_and_each_by_its_own(versions, exported_shop):
    ids = exported_shop.vocabulary.ids.to_pylist()
    store = SQLiteHistories(":memory:")
    histories = [ids[number : number + 3] for number in range(20)]
    for user, history in enumerate(histories):
        store.add([Event(str(t), str(user), item, float(t)) for t, item in enumerate(history)])

    async def ask(post):
        asked = [
            post("/v1/recommend", json={"user": user, "k": 1 + user % 7}) for user in range(20)
        ]
        return await asyncio.gather(*asked)

    responses, text = in_flight(create_app(versions, store), ask)
    for user, response in enumerate(responses):
        expected = exported_shop.recommend([histories[user]], k=1 + user % 7)[0]
        assert shown(response) == expected.items
    calls = float(text.partition("tfrec_batch_size_count ")[2].split()[0])
    assert calls < 10


def test_more_calls_of_signatures_than_can_wait_are_refused_and_the_others_answered(versions):
    async def ask(post):
        asked = {"instances": [["tops-1"]]}
        return await asyncio.gather(*(post(PREDICT, json=asked) for _ in range(300)))

    responses, _ = in_flight(create_app(versions, SQLiteHistories(":memory:")), ask)
    answered = [one for one in responses if one.status_code == 200]
    assert len(answered) >= 128
    refused = [one for one in responses if one.status_code != 200]
    assert refused, "all of them waited"
    assert {one.status_code for one in refused} == {503}
    assert refused[0].headers["retry-after"] == "1"
    assert "Too many requests" in refused[0].json()["error"]


def in_flight(app, ask):
    """Runs requests that are in flight at once, and returns what came back, and the measures."""

    async def run():
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            found = await ask(client.post)
            return found, (await client.get("/metrics")).text

    return asyncio.run(run())


@pytest.fixture(scope="module")
def halves(shop, exported_shop, tmp_path_factory):
    """Two exports of one model; the second recommends only half of the items."""
    folder = tmp_path_factory.mktemp("halves")
    shutil.copytree(exported_shop.path, folder / "1")
    half = shop.vocabulary.ids.to_pylist()[12:]
    shop.export(folder / "2", candidates=half, profiles=shop_profiles())
    return folder


def test_a_new_user_gets_what_suits_the_profile_and_the_page(halves, client):
    folder = halves
    versions = ModelVersions(folder)
    half = set(versions.get(2).vocabulary.ids.to_pylist()[12:])
    with TestClient(create_app(versions, SQLiteHistories(":memory:"))) as profiled:

        def asked(**whom):
            response = profiled.post("/v1/recommend", json={"k": 6, **whom})
            assert response.status_code == 200, response.text
            return response.json()

        def kinds(found):
            return [one["item"].partition("-")[0] for one in found["items"]]

        plain = asked(user="new")
        assert plain["source"] == "popularity"
        for style, kind in enumerate(KINDS):
            found = asked(user="new", profile={"style": f"style {style}", "age": 20 + 20 * style})
            assert found["source"] == "profile"
            assert kinds(found)[:2] == [kind, kind]
            assert {one["item"] for one in found["items"]} <= half
            page = asked(user="new", context={"kind": kind})
            assert page["source"] == "popularity"
            assert set(kinds(page)) == {kind}
        assert asked(user="new", profile={"style": "never seen"}) == plain
        assert asked(user="new", context={"kind": "never seen"}) == plain
        both = asked(profile={"style": "style 0"}, context={"kind": "hats"}, exclude=["hats-0"])
        assert both["source"] == "profile"
        assert set(kinds(both)) == {"hats"}
        assert "hats-0" not in {one["item"] for one in both["items"]}
        known = asked(history=["hats-1"], profile={"style": "style 0"})
        assert known["source"] == "model"
        for whom in (
            {"profile": {"stile": "x"}},
            {"profile": {"age": "old"}},
            {"context": {"price": "1"}},
            {"context": {"colour": "red"}},
        ):
            refused = profiled.post("/v1/recommend", json=whom)
            assert refused.status_code == 400
            assert "'" in refused.json()["error"]
    refused = client.post("/v1/recommend", json={"profile": {"style": "x"}})
    assert refused.status_code == 400
    assert "without profiles" in refused.json()["error"]


def copied(halves, folder, version):
    """Publishes a version as `export` does: whole at once. Odd and even ones are alike."""
    shutil.copytree(halves / str(2 - version % 2), folder / f".{version}")
    (folder / f".{version}").rename(folder / str(version))


def test_versions_are_swapped_under_load_without_a_failed_or_a_mixed_answer(halves, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    copied(halves, folder, 1)
    both = [ExportedModel(halves / str(version)) for version in (2, 1)]
    ids = both[0].vocabulary.ids.to_pylist()
    expected = [model.recommend([ids[:2]], k=5)[0].items for model in both]
    assert expected[0] != expected[1]
    versions = ModelVersions(folder)
    app = create_app(
        versions, SQLiteHistories(":memory:"), ServerOptions(poll_seconds=0.02, timeout=60)
    )

    async def ask(post):
        answers = []
        done = asyncio.Event()

        async def load():
            while not done.is_set():
                answers.append(await post("/v1/recommend", json={"history": ids[:2], "k": 5}))
                await asyncio.sleep(0.02)

        tasks = [asyncio.create_task(load()) for _ in range(3)]
        for version in (2, 3):
            await asyncio.to_thread(copied, halves, folder, version)
            while versions.get().version != version:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        done.set()
        await asyncio.gather(*tasks)
        return answers

    answers, _ = in_flight(app, ask)
    seen = [answer.json()["version"] for answer in answers]
    assert set(seen) == {1, 2, 3}
    for answer, version in zip(answers, seen, strict=True):
        assert answer.json()["source"] == "model"
        assert shown(answer) == expected[version % 2]
    states = {one.version: one.state for one in versions.states()}
    assert states == {1: "END", 2: "END", 3: "AVAILABLE"}


def test_traffic_is_shared_by_user_and_taken_back(halves, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    copied(halves, folder, 1)
    copied(halves, folder, 2)
    versions = ModelVersions(folder)
    with TestClient(create_app(versions, SQLiteHistories(":memory:"))) as client:

        def answered():
            return {
                user: client.post("/v1/recommend", json={"user": user}).json()["version"]
                for user in range(60)
            }

        def newer():
            return {user for user, version in answered().items() if version == 2}

        assert len(newer()) == 60
        shares = {"shares": {"1": 0.8, "2": 0.2}}
        assert client.put("/v1/traffic", json=shares).json() == shares
        few = newer()
        assert 3 <= len(few) <= 24
        assert newer() == few
        client.put("/v1/traffic", json={"shares": {"1": 0.5, "2": 0.5}})
        assert few < newer()
        client.put("/v1/traffic", json={"shares": {"1": 1.0}})
        assert newer() == set()
        states = client.get("/v1/models/shop").json()["model_version_status"]
        assert [(one["version"], one["state"]) for one in states] == [
            ("2", "END"),
            ("1", "AVAILABLE"),
        ]
        (folder / "traffic.json").write_text("damaged")
        versions.refresh()
        assert newer() == set()
        client.put("/v1/traffic", json={"shares": None})
        assert len(newer()) == 60
    shutil.rmtree(folder / "2")
    versions.refresh()
    assert versions.get().version == 1


def test_a_version_that_cannot_be_loaded_changes_nothing(halves, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    with pytest.raises(SavedModelError, match="no version of a model"):
        ModelVersions(folder)
    copied(halves, folder, 1)
    versions = ModelVersions(folder)
    (folder / "2").mkdir()
    assert not versions.refresh()
    assert versions.get().version == 1
    (newest, _) = versions.states()
    assert (newest.version, newest.state) == (2, "END")
    assert "no exported model" in newest.error
    shutil.rmtree(folder / "2")
    copied(halves, folder, 2)
    assert versions.refresh()
    assert versions.get().version == 2
    diverged(folder / "3")
    assert not versions.refresh()
    assert versions.get().version == 2
    assert "not finite" in versions.states()[0].error


def diverged(folder):
    """Exports a model whose training has diverged."""
    vocabulary = tr.data.Vocabulary(["a", "b", "c"])
    encoder = tr.models.BehaviorEncoder(vocab_size=vocabulary.size, emb_dim=8, num_layers=1)
    model = tr.models.NextBehaviorModel(encoder)
    model.build()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    export_model(tr.evaluation.ModelScorer(model, vocabulary), folder)


def test_the_openapi_document_describes_the_shops_routes(client):
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/recommend"]["post"]
    assert body["requestBody"]["content"]["application/json"]["schema"]
    assert {"200", "400", "401", "413", "422", "429"} <= set(body["responses"])
    assert body["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "ErrorResponse"
    )


def test_the_openapi_document_tells_how_to_ask_as_tensorflow_serving_is_asked(client):
    predict = client.get("/openapi.json").json()["paths"]["/v1/models/{model}:predict"]["post"]
    body = predict["requestBody"]["content"]["application/json"]["schema"]
    (name,) = predict["parameters"][0]["schema"]["enum"]
    (rows,) = body["properties"]["instances"]["examples"]
    assert set(body["properties"]) == {"signature_name", "instances", "inputs"}
    assert client.post(f"/v1/models/{name}:predict", json={"instances": rows}).status_code == 200


def test_many_events_at_once_are_all_kept(client):
    def post(number):
        events = [{"user": "crowd", "item": f"i{number}-{i}", "time": i} for i in range(5)]
        assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 5

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.get("/v1/users/crowd").json()["events"]) == 40
