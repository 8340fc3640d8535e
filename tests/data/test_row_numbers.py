import numpy as np
import pyarrow as pa

from tfrec_llm.data import row_numbers


def test_text_beyond_what_one_arrow_array_holds_is_taken(monkeypatch):
    monkeypatch.setattr(row_numbers, "_PIECE", 300)
    # The same chunk many times over: 2.1 GB to Arrow, 1 MB to the machine.
    chunk = pa.array(["x" * 1_000_000, None, "y"])
    column = pa.chunked_array([chunk] * 2_200)
    rows = np.arange(len(column))[::-1][::3]
    numbers = pa.array(np.arange(len(column)))
    taken = row_numbers.take_rows(pa.table({"text": column, "row": numbers}), rows)
    assert taken["row"].to_pylist() == rows.tolist()
    assert set(taken["text"].to_pylist()) == {"y"}
    taken = row_numbers.take_rows(pa.table({"text": column}), np.array([0, 1, 2]))
    assert taken["text"].to_pylist() == chunk.to_pylist()


def test_missing_values_stay_missing_when_numbers_are_renewed():
    codes, values = row_numbers.renumber(np.array([-1, 1, -1, 1]), pa.array(["A", "B"]))
    assert codes.tolist() == [-1, 0, -1, 0]
    assert values.to_pylist() == ["B"]
    assert row_numbers.renumber(np.array([], np.int64), pa.array(["A"]))[1].to_pylist() == []
