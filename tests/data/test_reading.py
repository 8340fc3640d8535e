import bz2
import gzip
import lzma
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrec_llm.data import BehaviorLog, Catalogue, FeatureTable
from tfrec_llm.errors import DataError, DataFileError, MissingColumnError, MixedTypeError

CLICKS = {"user": [1, 1, 2], "item": ["a", "b", "a"], "time": [3, 1, 2]}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_files_of_a_folder_are_read_in_the_order_of_their_names(write, tmp_path):
    second = write("log/2024/b.parquet", CLICKS | {"item": ["c", "d", "e"]})
    first = write("log/2024/a.parquet", CLICKS)
    write("log/_spark/notes.parquet", CLICKS)
    write("log/_SUCCESS", "")
    write("log/.a.parquet.crc", "")
    expected = ["a", "b", "a", "c", "d", "e"]
    assert BehaviorLog.from_parquet(tmp_path / "log").item.to_pylist() == expected
    assert BehaviorLog.from_parquet([str(first), second]).item.to_pylist() == expected
    assert BehaviorLog.from_parquet([second, first]).item.to_pylist() == expected[3:] + expected[:3]


def test_csv_files_of_a_folder_are_read_compressed_or_not(write, tmp_path):
    text = "user,item,time\n1,a,3\n"
    write("log/1.csv", text)
    write("log/2.csv.gz", gzip.compress(text.replace("a", "b").encode()))
    write("log/3.CSV.bz2", bz2.compress(text.replace("a", "c").encode()))
    assert BehaviorLog.from_csv(tmp_path / "log").item.to_pylist() == ["a", "b", "c"]


def test_parts_of_a_path_are_columns(write, tmp_path):
    write("log/day=05-01/x.parquet", CLICKS)
    write("log/day=05-02/x.parquet", CLICKS)
    log = BehaviorLog.from_parquet(tmp_path / "log", context=["day"])
    assert log.table["day"].to_pylist() == ["05-01"] * 3 + ["05-02"] * 3


def test_what_is_not_there_is_said(write, tmp_path):
    with pytest.raises(DataFileError, match=r"no file or folder .*nowhere\.parquet"):
        BehaviorLog.from_parquet(tmp_path / "nowhere.parquet")
    write("log/a.csv", "user,item,time\n1,a,3\n")
    with pytest.raises(DataFileError, match=r"log has no Parquet file\. It has a\.csv"):
        BehaviorLog.from_parquet(tmp_path / "log")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match=r"empty has no CSV file\. It has no file"):
        BehaviorLog.from_csv(tmp_path / "empty")
    with pytest.raises(DataFileError, match="list of files is empty"):
        BehaviorLog.from_csv([])


@pytest.mark.parametrize("damage", ["end", "footer", "page", "all", "text"])
def test_a_damaged_parquet_file_is_named(write, damage):
    path = write("good.parquet", {k: v * 1000 for k, v in CLICKS.items()})
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[4:40] = b"\xff" * 36
    content = {
        "end": whole[:-1],
        "footer": whole[: len(whole) // 2],
        "page": bytes(middle),
        "all": b"",
        "text": b"user,item,time\n1,a,3\n",
    }[damage]
    write("part.parquet", content)
    with pytest.raises(
        DataFileError, match=r"part\.parquet cannot be read as Parquet; .*truncated"
    ):
        BehaviorLog.from_parquet([path, path.with_name("part.parquet")])


def test_a_file_that_lacks_a_column_is_named_with_the_columns_it_has(write, tmp_path):
    write("log/a.parquet", CLICKS)
    write("log/b.parquet", {"user": [1], "item": ["a"]})
    with pytest.raises(
        MissingColumnError, match=r"b\.parquet has no column 'time'.*'user', 'item'"
    ):
        BehaviorLog.from_parquet(tmp_path / "log")
    write("csv/a.csv", "user,item,time\n1,a,3\n")
    write("csv/b.csv", "user,item\n1,a\n")
    with pytest.raises(MissingColumnError, match=r"b\.csv has no column 'time'.*'user', 'item'"):
        BehaviorLog.from_csv(tmp_path / "csv")


def test_tables_whose_files_have_other_columns_are_refused(write, tmp_path):
    write("items/a.parquet", {"item": [1], "price": [2.0]})
    write("items/b.parquet", {"item": [2], "cost": [2.0]})
    with pytest.raises(DataFileError, match=r"a\.parquet and .*b\.parquet .*\['cost', 'price'\]"):
        Catalogue.from_parquet(tmp_path / "items")
    write("items/b.parquet", {"price": [3.0], "item": [2]})
    assert Catalogue.from_parquet(tmp_path / "items").column("price").to_pylist() == [2, 3]


def test_number_types_that_differ_among_files_are_widened(write, tmp_path):
    # What pandas writes for a day on which one user is missing, and for a day without.
    write("log/1.parquet", CLICKS | {"user": np.array([1, 1, 2], np.int32)})
    write("log/2.parquet", CLICKS | {"user": [7.0, None, 9.0]})
    write("log/3.parquet", CLICKS | {"user": pa.array([5, 5, 5]).dictionary_encode()})
    log = BehaviorLog.from_parquet(tmp_path / "log")
    assert log.user.to_pylist() == [1, 1, 2, 7, None, 9, 5, 5, 5]
    assert log.user.type == pa.int64()


def test_types_that_do_not_go_together_are_named_with_their_files(write, tmp_path):
    write("log/1.parquet", CLICKS)
    write("log/2.parquet", CLICKS | {"user": ["x", "y", "z"]})
    with pytest.raises(
        MixedTypeError, match=r"'user' is int64 in .*1\.parquet and string in .*2\.p"
    ):
        BehaviorLog.from_parquet(tmp_path / "log")
    log = BehaviorLog.from_parquet(tmp_path / "log", ids="string")
    assert log.user.to_pylist() == ["1", "1", "2", "x", "y", "z"]
    write("log/2.parquet", CLICKS | {"time": ["2024-01-01"] * 3})
    with pytest.raises(MixedTypeError, match="'time' is int64"):
        BehaviorLog.from_parquet(tmp_path / "log")


def test_categories_of_several_files_are_joined(write, tmp_path):
    write("log/1.parquet", CLICKS | {"kind": pa.array(["x", "y", "x"]).dictionary_encode()})
    write("log/2.parquet", CLICKS | {"kind": ["z", "y", "x"]})
    log = BehaviorLog.from_parquet(tmp_path / "log", behavior="kind")
    assert log.table["behavior"].to_pylist() == ["x", "y", "x", "z", "y", "x"]


def test_csv_ids_are_integers_only_where_that_loses_nothing(write):
    text = "user,item,time\n1,007,2024-01-01\n2,8,2024-01-02\n,9,\n"
    log = BehaviorLog.from_csv(write("a.csv", text))
    assert log.user.to_pylist() == [1, 2, None]
    assert log.item.to_pylist() == ["007", "8", "9"]
    assert log.table["time"].null_count == 1
    plain = BehaviorLog.from_csv(write("a.csv", text.replace("007", "7")))
    assert plain.item.to_pylist() == [7, 8, 9]
    as_text = BehaviorLog.from_csv(write("a.csv", text), ids="string")
    assert as_text.user.to_pylist() == ["1", "2", None]


def test_one_csv_file_with_text_ids_makes_those_of_all_files_text(write, tmp_path):
    write("log/1.csv", "user,item,time\n1,7,3\n")
    write("log/2.csv", "user,item,time\n1,C7,3\n")
    log = BehaviorLog.from_csv(tmp_path / "log")
    assert log.item.to_pylist() == ["7", "C7"]
    assert log.user.to_pylist() == [1, 1]


def test_csv_values_missing_and_values_that_only_look_so(write):
    text = 'user,item,time,country\n"1","a,b","3",NA\n"","","",""\nNULL,NaN,null,"two\nlines"\n'
    log = BehaviorLog.from_csv(write("a.csv", text), context="country")
    assert log.user.to_pylist() == [1, None, None]
    assert log.item.to_pylist() == ["a,b", None, None]
    assert log.table["time"].to_pylist() == [3, None, None]
    assert log.table["country"].to_pylist() == ["NA", None, "two\nlines"]


def test_a_wrong_delimiter_is_answered_with_the_right_one(write):
    text = "user;item;time\n1;7,5;3\n2;8;4\n"
    with pytest.raises(MissingColumnError, match='Try delimiter=";"'):
        BehaviorLog.from_csv(write("a.csv", text))
    assert BehaviorLog.from_csv(write("a.csv", text), delimiter=";").item.to_pylist() == [
        "7,5",
        "8",
    ]
    with pytest.raises(MissingColumnError, match=r'Try delimiter="\\t"'):
        BehaviorLog.from_csv(write("a.tsv", text.replace(";", "\t")))


def test_a_csv_column_whose_later_values_are_text_becomes_text(write):
    # The type is told from the first four megabytes.
    rows = "1,7,3,536379\n" * 400_000
    path = write("a.csv", f"user,item,time,invoice\n{rows}1,7,3,C5\n")
    invoices = BehaviorLog.from_csv(path, context="invoice").table["invoice"]
    assert invoices.type == pa.string()
    assert (invoices[0].as_py(), invoices[-1].as_py()) == ("536379", "C5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header line"),
        (b"user,item,time\n1,7\n", "Expected 3 columns, got 2"),
        ("user,item,time\nJosé,7,3\n".encode("latin-1"), 'encoding="latin-1"'),
        (lzma.compress(b"user,item,time\n1,7,3\n"), "holds no text in the encoding utf-8"),
        (b"user,item,time\n1,7,3\n\x00\x00,\xff\xfe", "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_no_csv_is_named(write, content, message):
    path = write("a.csv", content)
    with pytest.raises(DataFileError, match=message) as raised:
        BehaviorLog.from_csv(path)
    assert str(path) in str(raised.value)


def test_a_truncated_compressed_csv_is_named(write):
    path = write(
        "a.csv.gz", gzip.compress(b"user,item,time\n" + os.urandom(9_999).hex().encode())[:99]
    )
    with pytest.raises(DataFileError, match=r"a\.csv\.gz cannot be read"):
        BehaviorLog.from_csv(path)


def test_other_encodings_and_marks_are_read(write):
    text = "user,item,time\r\nJosé,7,3\r\n\r\n"
    for encoding in ("latin-1", "utf-16", "utf-8-sig"):
        path = write("a.csv", text.encode(encoding))
        given = "utf-8" if encoding == "utf-8-sig" else encoding
        assert BehaviorLog.from_csv(path, encoding=given).user.to_pylist() == ["José"]


def test_a_csv_of_only_a_header_is_an_empty_log(write):
    assert len(BehaviorLog.from_csv(write("a.csv", "user,item,time\n"))) == 0


def test_a_csv_column_of_words_is_no_time(write):
    with pytest.raises(DataError, match="'noon' in row 1"):
        BehaviorLog.from_csv(write("a.csv", "user,item,time\n1,7,3\n2,8,noon\n"))


def test_features_are_read_from_csv_and_parquet(write):
    path = write("items.csv", "sku|title|price\n007|White blouse|43\n008|Red skirt|28.5\n")
    items = Catalogue.from_csv(path, key="sku", delimiter="|", columns=["price"])
    assert items.types == {"price": "numeric"}
    assert items.lookup(["008"])["price"].to_pylist() == [28.5]
    path = write("users.parquet", {"id": [1, 2], "age": [30, None], "name": ["x", "y"]})
    users = FeatureTable.from_parquet(path, key="id", ids="string", columns=["age"])
    assert users.lookup(["1"])["age"].to_pylist() == [30]
