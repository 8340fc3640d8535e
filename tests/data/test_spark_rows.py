import os
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfrec_llm as tr
from tfrec_llm.data import KCore, Shards
from tfrec_llm.errors import DataFileError, MissingColumnError, NullValueError

sql = pytest.importorskip(
    "pyspark.sql", reason="Spark is not installed: pip install 'tfrec-llm[spark]'"
)
if shutil.which("java") is None:
    pytest.skip("Spark needs a Java runtime", allow_module_level=True)


@pytest.fixture(scope="module")
def spark():
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[2]").appName("tests")
    session = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def table():
    log = tr.data.ShopSimulator(120, 40, seed=4).simulate()
    kinds = np.array(["view", "cart", "purchase"])[np.arange(len(log)) ** 2 % 7 % 3]
    # Times at which several things happened, whose order is that of the rows.
    times = pa.array(log.table["time"].to_numpy().astype("M8[D]").astype("M8[us]"))
    return pa.table(
        {
            "customer": log.user.cast(pa.string()),
            "sku": log.item,
            "at": times,
            "kind": kinds,
        }
    )


@pytest.fixture(scope="module")
def files(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    for number, first in enumerate(range(0, len(table), 500)):
        pq.write_table(table.slice(first, 500), folder / f"{number:02}.parquet")
    return folder


COLUMNS = {"user": "customer", "item": "sku", "time": "at", "behavior": "kind"}


def test_spark_writes_the_same_shards_with_the_core_and_users_kept_apart(spark, files, tmp_path):
    options = COLUMNS | {"num_shards": 3, "validation": 0.2, "core": KCore(4, 14)}
    expected = Shards.write(files, tmp_path / "here", **options)
    found = Shards.write(files, tmp_path / "spark", **options, spark=spark)
    assert 10 < len(expected.vocabulary) < 40
    assert found.vocabulary == expected.vocabulary
    assert found.behavior_vocabulary == expected.behavior_vocabulary
    assert found.validation.table.equals(expected.validation.table)
    for number in range(3):
        ours, theirs = found.read([number]), expected.read([number])
        assert ours.user_ids.equals(theirs.user_ids)
        for name in ("items", "offsets", "times", "behaviors"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        np.testing.assert_array_equal(found.lengths[number], expected.lengths[number])


def test_spark_writes_empty_shards_and_reads_several_paths(spark, files, tmp_path):
    few = sorted(files.iterdir())[:2]
    few = [few[1], few[0]]
    options = COLUMNS | {"num_shards": 300, "min_count": 5}
    expected = Shards.write(few, tmp_path / "here", **options)
    found = Shards.write(few, tmp_path / "spark", **options, spark=spark)
    assert found.vocabulary == expected.vocabulary
    ours, theirs = found.read(range(300)), expected.read(range(300))
    np.testing.assert_array_equal(ours.items, theirs.items)
    assert min(len(each) for each in found.lengths) == 0


def test_spark_says_what_is_wrong_as_the_library_does(spark, files, table, tmp_path):
    pq.write_table(
        table.set_column(0, "customer", pa.nulls(len(table), pa.string())), tmp_path / "no.parquet"
    )
    for source, columns, error, words in (
        (tmp_path / "no.parquet", COLUMNS, NullValueError, "lack their user"),
        (files, COLUMNS | {"item": "article"}, MissingColumnError, "article"),
        (tmp_path / "nowhere", COLUMNS, DataFileError, "nowhere"),
    ):
        with pytest.raises(error, match=words):
            Shards.write(source, tmp_path / "shards", **columns, num_shards=2, spark=spark)
    assert [path.name for path in tmp_path.iterdir()] == ["no.parquet"]
