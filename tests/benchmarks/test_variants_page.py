from pathlib import Path

import pytest

SERVING = Path(__file__).parents[2] / "benchmarks" / "serving"

pytestmark = pytest.mark.skipif(not SERVING.exists(), reason="benchmarks/ is not beside the tests")


def test_the_page_shows_the_result_file(scripts_in):
    variants = scripts_in("serving")("variants")
    page = variants.PAGE.read_text(encoding="utf-8")
    assert page == variants.renewed(page, variants.RESULTS), (
        "docs/export.md is out of date: run python benchmarks/serving/variants.py"
    )
