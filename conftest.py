"""Examples are tests: those in docstrings, in the README and in the docs' pages."""

import gc
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# Files whose tests take minutes, the longest first: what runs beside them ends when they do.
_LONG = ("test_backends.py", "test_examples.py", "test_docs.py")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the order below in parallel runs, which else begin with the files of most tests.

    And has Python look for garbage seldom: tracing graphs makes so many objects that a tenth of
    the time would go into it.
    """
    gc.set_threshold(100_000, 50, 100)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first."""
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(_LONG)))


@pytest.fixture(autouse=True)
def _names_of_docstring_examples(request: pytest.FixtureRequest) -> None:
    """Gives a docstring example what its reader has imported: the library, Keras, NumPy."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    names = request.node.dtest.globs  # it holds the module's own names already
    for alias, module in (("tfrec_llm", "tfrec_llm"), ("keras", "keras"), ("np", "numpy")):
        names.setdefault(alias, importlib.import_module(module))


@pytest.fixture(scope="module")
def _files_of_page(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Runs a page's code in an empty folder, so that what it writes stays out of the tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(Path(request.node.name).stem))
        patch.setenv("MPLBACKEND", "Agg")
        yield


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["_files_of_page"],
).pytest()
