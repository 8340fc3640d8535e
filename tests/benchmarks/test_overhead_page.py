from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "distribution"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="benchmarks/ is not beside the tests")


def test_the_page_shows_the_result_file(scripts_in):
    overhead = scripts_in("distribution")("overhead")
    page = overhead.PAGE.read_text(encoding="utf-8")
    assert page == overhead.renewed(page, overhead.RESULT), (
        "docs/scaling.md is out of date: run python benchmarks/distribution/overhead.py"
    )
