"""The pages that show what large catalogues take are those of the result files."""

from pathlib import Path

import pytest

MEMORY = Path(__file__).parents[2] / "benchmarks" / "memory"

pytestmark = pytest.mark.skipif(not MEMORY.exists(), reason="benchmarks/ is not beside the tests")


@pytest.mark.parametrize("name", ["large_catalogue", "compressed_tables"])
def test_the_page_shows_the_result_file(scripts_in, name):
    tables = scripts_in("memory")("memory_tables")
    page, _ = tables.TABLES[name]
    text = page.read_text(encoding="utf-8")
    assert text == tables.renewed(name, text), (
        f"docs/{page.name} is out of date: run python benchmarks/memory/memory_tables.py"
    )
