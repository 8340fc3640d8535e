import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tfrec_data() -> Path:
    """The folder of real data sets that cannot be shipped."""
    if "TFREC_DATA" not in os.environ:
        pytest.skip("TFREC_DATA does not say where the data sets are")
    return Path(os.environ["TFREC_DATA"])
