"""The page at `/`, as a person uses it, in a real browser."""

import shutil

import pyarrow as pa
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")
from playwright.sync_api import expect, sync_playwright
from serving_shop import answering, shop_catalogue

import tfrec_llm as tr
from tfrec_llm.serving import (
    ExportedModel,
    ModelVersions,
    ServerOptions,
    SQLiteHistories,
    create_app,
)

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="there is no Chromium: apt-get install chromium"
)

expect.set_options(timeout=15_000)
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def model(exported_shop, tmp_path_factory):
    """The shop with names for its items, one of which is an attack."""
    folder = tmp_path_factory.mktemp("named") / "shop"
    shutil.copytree(exported_shop.path, folder / "1")
    table = shop_catalogue().table
    titles = [f"{kind} number {number}" for number, kind in enumerate(table["kind"].to_pylist())]
    first = ExportedModel(folder / "1").cold_start.recommend(1).items[0]
    titles[table["item"].to_pylist().index(first)] = HOSTILE
    named = tr.data.Catalogue(
        table.append_column("title", pa.array(titles)), types={"title": "text"}
    )
    named.save(folder / "1" / "assets.extra" / "catalogue.parquet")
    return ModelVersions(folder)


@pytest.fixture(scope="module")
def address(model):
    with answering(create_app(model, SQLiteHistories(":memory:"))) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens addresses, and fails if the browser complains or anything is taken from elsewhere."""
    contexts, complaints = [], []

    def opening(address, *, refused=False, **options):
        context = browser.new_context(**{"locale": "en-GB"} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.extend(
            [] if request.url.startswith(address) else [request.url]))  # fmt: skip
        if not refused:
            page.on("console", lambda message: complaints.append(message.text))
        page.goto(address)
        return page

    yield opening
    for context in contexts:
        context.close()
    assert complaints == []


def listed(page):
    expect(page.locator("#list li")).to_have_count(10)
    return [text.split(" · ")[-1] for text in page.locator("#list .about small").all_inner_texts()]


def test_an_event_posted_on_the_page_changes_the_list(opened, address, model):
    page = opened(address)
    shop = model.get()
    page.fill("#user", "anna")
    page.click("#user-form button:not(.link)")
    expect(page.locator("#source")).to_contain_text("popular")
    popular = shop.cold_start.recommend(10).items
    expect(page.locator("#list .about small").first).to_contain_text(popular[0])
    assert listed(page) == popular
    # What the catalogue says of it is text, whatever it holds.
    assert page.locator("#list .about span").first.inner_text() == HOSTILE
    assert page.title() == "Recommendations, live"
    assert "price" in page.locator("#list li").first.inner_text()

    page.locator("#list li").nth(1).get_by_role("button", name="View").click()
    expect(page.locator("#source")).to_contain_text("By the model")
    expect(page.locator("#history li")).to_have_count(1)
    expected = shop.recommend([[popular[1]]], behaviors=[["view"]])[0].items
    assert listed(page) == expected
    assert any(page.locator("#list .moved").all_inner_texts())
    expect(page.locator("#figure-events")).to_have_text("1")
    expect(page.locator("#figure-by_the_model")).not_to_have_text("0")

    page.click("#forget")
    expect(page.locator("#notice")).to_have_text("Events erased: 1.")
    expect(page.locator("#history li")).to_have_count(0)
    assert listed(page) == popular


def test_items_are_found_by_words_and_make_a_history(opened, address, model):
    page = opened(address)
    page.click("#by-items")
    for number in (17, 20):
        page.fill("#find", f"HATS number {number}")
        # What was found before stays until the answer comes.
        expect(page.locator("#found li")).to_have_count(1)
        expect(page.locator("#found li")).to_contain_text(f"hats number {number}")
        page.click("#found button")
        expect(page.locator("#history li")).to_have_count(1 + (number == 20))
    items = page.locator("#history .about small").all_inner_texts()
    assert [text.split(" · ")[-1] for text in items] == ["hats-4", "hats-1"]
    expect(page.locator("#source")).to_contain_text("By the model")
    assert listed(page) == model.get().recommend([["hats-1", "hats-4"]])[0].items
    page.locator("#history li").first.get_by_role("button").click()
    expect(page.locator("#history li")).to_have_count(1)
    assert listed(page) == model.get().recommend([["hats-1"]])[0].items


def test_it_speaks_chinese_to_browsers_that_do_and_changes_at_a_wish(opened, address):
    page = opened(address, locale="zh-CN")
    expect(page.locator("h1")).to_have_text("实时推荐")
    expect(page.locator("#source")).to_contain_text("热门")
    assert page.locator("html").get_attribute("lang") == "zh"
    page.select_option("#language", "en")
    expect(page.locator("h1")).to_have_text("Recommendations, live")
    page.reload()
    expect(page.locator("h1")).to_have_text("Recommendations, live")


def test_every_text_is_there_in_both_languages(opened, address):
    page = opened(address)
    keys = page.evaluate("""async () => {
        const { words } = await import("/page/words.js");
        const used = [...document.querySelectorAll("[data-words]")].map((e) => e.dataset.words);
        return [Object.keys(words.en), Object.keys(words.zh), used];
    }""")
    assert keys[0] == keys[1]
    assert set(keys[2]) <= set(keys[0])


def test_it_fits_a_phone(opened, address):
    page = opened(address, **PHONE)
    listed(page)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["viewport"]["width"]
    page.locator("#list button").first.tap()
    expect(page.locator("#history li")).to_have_count(1)
    for button in page.locator("#list button, #by-user, #language").all()[:6]:
        assert button.bounding_box()["height"] >= 40


def test_it_asks_for_a_key_and_forgets_it_with_the_tab(opened, model):
    app = create_app(model, SQLiteHistories(":memory:"), ServerOptions(api_keys=["right"]))
    with answering(app) as address:
        page = opened(address, refused=True)
        expect(page.locator("#key")).to_be_visible()
        expect(page.locator("#shop")).to_be_hidden()
        page.fill("#key-text", "wrong")
        page.click("#key button")
        expect(page.locator("#notice")).to_have_text("The server does not know this key.")
        page.fill("#key-text", "right")
        page.click("#key button")
        listed(page)
        expect(page.locator("#figure-lists")).not_to_have_text("0")
        assert page.evaluate("[Object.values(localStorage), document.cookie]") == [[], ""]
        assert "right" not in page.url
        other = page.context.new_page()
        other.goto(address)
        expect(other.locator("#key")).to_be_visible()
