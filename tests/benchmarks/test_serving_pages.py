from pathlib import Path

import pytest

SERVING = Path(__file__).parents[2] / "benchmarks" / "serving"

pytestmark = pytest.mark.skipif(not SERVING.exists(), reason="benchmarks/ is not beside the tests")


@pytest.mark.parametrize("name", ["variants", "index", "load"])
def test_the_page_shows_the_result_file(scripts_in, name):
    script = scripts_in("serving")(name)
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.renewed(page, script.RESULTS), (
        f"docs/{script.PAGE.name} is out of date: run python benchmarks/serving/{name}.py"
    )
