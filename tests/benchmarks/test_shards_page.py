from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "benchmarks" / "data"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="benchmarks/ is not beside the tests")


def test_the_page_shows_the_result_file(scripts_in):
    shards = scripts_in("data")("shards")
    page = shards.PAGE.read_text(encoding="utf-8")
    assert page == shards.renewed(page, shards.RESULT), (
        "docs/data.md is out of date: run python benchmarks/data/shards.py"
    )
