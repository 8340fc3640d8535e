import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts_in(monkeypatch):
    """Gives the import of scripts in folders of the benchmarks, which stand beside each other.

    Modules of different benchmarks have the same names, so what stands in benchmarks/ is
    forgotten before and after.
    """

    def importing(*folders):
        for folder in folders:
            monkeypatch.syspath_prepend(BENCHMARKS / folder)
        return importlib.import_module

    _forget()
    yield importing
    _forget()


def _forget():
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and BENCHMARKS in Path(path).parents:
            del sys.modules[name]
