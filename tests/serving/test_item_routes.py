import pytest

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from tfrec_llm.serving import ModelVersions, ServerOptions, SQLiteHistories, create_app
from tfrec_llm.serving.page import PATHS


@pytest.fixture(scope="module")
def versions(exported_shop):
    return ModelVersions(exported_shop.path.parent)


@pytest.fixture(scope="module")
def client(versions):
    app = create_app(versions, SQLiteHistories(":memory:"), ServerOptions(max_history=30))
    with TestClient(app) as client:
        yield client


def test_items_are_told_by_their_ids_in_their_order(client):
    found = client.get("/v1/items", params={"id": ["hats-3", "none such", "tops-1"]}).json()[
        "items"
    ]
    assert [one["item"] for one in found] == ["hats-3", "none such", "tops-1"]
    assert found[0] == {
        "item": "hats-3",
        "name": None,
        "category": "hats",
        "price": 4.0,
        "features": {"kind": "hats", "price": 4.0},
    }
    assert found[1]["features"] == {}


def test_items_are_found_by_words(client, exported_shop):
    found = client.get("/v1/items", params={"q": "HATS", "limit": 30}).json()["items"]
    assert sorted(one["item"] for one in found) == [f"hats-{number}" for number in range(8)]
    popular = client.get("/v1/items", params={"limit": 4}).json()["items"]
    assert [one["item"] for one in popular] == exported_shop.cold_start.recommend(4).items


def test_the_server_tells_what_a_client_needs_to_know(client):
    about = client.get("/v1/about").json()
    assert (about["model"], about["version"], about["items"]) == ("shop", 1, 24)
    assert sorted(about["behaviors"]) == ["buy", "view"]
    assert about["max_history"] == 30


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"limit": 0}, 422),
        ({"limit": 10**9}, 422),
        ({"q": "x" * 300}, 422),
        ({"id": "x" * 300}, 422),
        ({"id": ["a"] * 31}, 400),
    ],
)
def test_what_is_wrong_gets_a_reason(client, asked, code):
    response = client.get("/v1/items", params=asked)
    assert response.status_code == code
    assert len(response.json()["error"]) > 5


def test_ids_may_hold_slashes(client):
    event = {"user": "a/b", "item": "tops-1"}
    client.post("/v1/events", json={"events": [event]})
    assert [one["item"] for one in client.get("/v1/users/a%2Fb").json()["events"]] == ["tops-1"]
    assert client.delete("/v1/users/a%2Fb").json() == {"erased": 1}


def test_a_strict_policy_goes_with_every_file_of_the_page(versions):
    app = create_app(versions, SQLiteHistories(":memory:"), ServerOptions(api_keys=["a key"]))
    with TestClient(app) as client:
        for path in PATHS:
            response = client.get(path)
            assert response.status_code == 200  # the page is there without a key, to ask for it
            policy = response.headers["content-security-policy"]
            for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
                assert part in policy
            assert "unsafe" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
        assert client.get("/page/../app.py").status_code == 401
        assert client.get("/v1/items").status_code == 401
        assert client.get("/v1/about").status_code == 401
