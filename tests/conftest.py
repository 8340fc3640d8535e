import importlib
import os
import sys
from pathlib import Path

import pytest

# A program that a test starts; pytest would run it in search of doctests.
collect_ignore = ["training/two_devices.py"]

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def pytest_addoption(parser):
    parser.addoption(
        "--one-variant-in",
        nargs="*",
        default=[],
        metavar="FOLDER",
        help="folders of tests/ of whose parametrised tests only the first variant runs",
    )


def pytest_collection_modifyitems(config, items):
    folders = config.getoption("one_variant_in")
    seen = set()
    kept, left = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        again = item.path.parent.name in folders and test in seen
        (left if again else kept).append(item)
        seen.add(test)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(scope="session")
def tfrec_data() -> Path:
    """The folder of real data sets that cannot be shipped."""
    if "TFREC_DATA" not in os.environ:
        pytest.skip("TFREC_DATA does not say where the data sets are")
    return Path(os.environ["TFREC_DATA"])


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


@pytest.fixture(scope="session")
def shop():
    """A fitted recommender of a small shop: string ids, kinds of behaviour, features."""
    from serving_shop import fitted_shop

    return fitted_shop()


@pytest.fixture(scope="session")
def exported_shop(shop, tmp_path_factory):
    """The shop's recommender, exported as version 1."""
    from tfrec_llm.serving import ExportedModel

    return ExportedModel(shop.export(tmp_path_factory.mktemp("serving") / "shop" / "1"))


@pytest.fixture(scope="session")
def numbers():
    """A fitted recommender whose ids are integers, trained to fill masks."""
    from serving_shop import fitted_numbers

    return fitted_numbers()
