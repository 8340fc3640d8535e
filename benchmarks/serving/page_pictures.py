"""Takes the pictures of the server's page that docs/serving.md shows.

    python benchmarks/serving/page_pictures.py [--epochs 2]

Trains on the package's gift shop for a few epochs, serves it, and has a Chromium that is installed
use the page: on a desktop in English, on a phone in Chinese (which needs a font that has it).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from load import serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=Path, default=IMAGES)
    arguments = parser.parse_args(argv)

    import pyarrow.compute as pc

    import tfrec_llm as tr

    log = tr.data.clean(tr.data.load("online_retail"), [tr.data.DropNulls()]).log
    log = log.take(pc.equal(log.table["behavior"], "purchase").to_numpy())
    rec = tr.Recommender("next", emb_dim=32, num_layers=1, max_length=50, seed=0)
    rec.fit(log, epochs=arguments.epochs, verbose=2)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "gifts"
        rec.export(model / "1")
        with serving(model, 64) as port:
            take(f"http://127.0.0.1:{port}/", arguments.images)


def take(address: str, images: Path) -> None:
    """Uses the page, and keeps what it looks like."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        desktop = {"viewport": {"width": 1100, "height": 800}, "locale": "en-GB"}
        use(browser.new_context(**desktop), address, images / "page.png")
        phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "locale": "zh-CN"}
        use(browser.new_context(**phone), address, images / "page_phone.png")
        browser.close()


def use(context: Any, address: str, picture: Path) -> None:
    """Looks at three items of the list, and takes the picture."""
    page = context.new_page()
    page.goto(address)
    page.fill("#user", "anna")
    page.click("#user-form button:not(.link)")
    for place in (2, 5, 1):
        seen = page.locator("#history li").count()
        page.locator("#list li").nth(place).get_by_role("button").first.click()
        page.locator("#history li").nth(seen).wait_for()
    page.wait_for_timeout(4500)  # two looks at the measures
    page.screenshot(path=picture)
    page.click("#forget")
    context.close()


if __name__ == "__main__":
    main()
