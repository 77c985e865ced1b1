"""Ids, dates and what is missing stay what they were, whatever a library makes of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import torch_warmstart as tws

load = tws.Vocabulary.load
BOM = b"\xef\xbb\xbf"


def as_lines(path, values, **more):
    """A file of JSON lines, each with one of them as `t`."""
    path.write_text("".join(json.dumps({"t": value, **more}) + "\n" for value in values))
    return path


@pytest.mark.parametrize(
    "values",
    [["2020-01-01", "2021-02-03"], ["2020-01-01 10:00:00", None], ["2020-01-01T10:00:00Z"] * 2],
    ids=str,
)
@pytest.mark.parametrize("column", [None, "t"])
def test_text_like_dates_is_text(values, column, tmp_path):
    found = load(as_lines(tmp_path / "v.jsonl", values), column=column)
    assert list(found.entries) == [None if v is None else v.encode() for v in values]


def test_ids_without_a_sign_are_no_fractions(tmp_path):
    values = [(1 << 63) + 1, 5, None, (1 << 64) - 1]
    path = as_lines(tmp_path / "v.jsonl", values, day="2020-01-01")
    assert list(load(path, column="t").entries) == values


@pytest.mark.parametrize("beside", [{}, {"note": [1.5, "b", None, "d"]}], ids=["alone", "beside"])
def test_a_column_of_objects_may_be_without_a_sign(beside):
    pandas = pytest.importorskip("pandas")
    values = [(1 << 63) + 1, 5, None, (1 << 64) - 1]
    table = pandas.DataFrame({"id": pandas.Series(values, dtype=object), **beside})
    assert list(tws.Vocabulary.load(table, column="id").entries) == values


@pytest.mark.parametrize("values", [[1.5, 2], [1 << 63, -1], [1 << 64, 1]], ids=str)
def test_numbers_that_are_no_ids_are_refused(values, tmp_path):
    with pytest.raises(tws.VocabularyError, match="floating numbers"):
        load(as_lines(tmp_path / "v.jsonl", values), column="t")


@pytest.mark.parametrize("name", ["v.jsonl", "v.dat"])
def test_a_mark_of_the_byte_order_before_json_lines_is_no_part_of_them(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BOM + b'{"t": "a"}\n{"t": "b"}\n')
    assert list(load(path, column="t").entries) == [b"a", b"b"]


@pytest.mark.parametrize("content", [b'["a", "b"]', b'{"a": 0, "b": 1}', b'["a",\n"b"]'])
def test_nor_is_it_of_json(content, tmp_path):
    path = tmp_path / "v.json"
    path.write_bytes(BOM + content)
    assert list(load(path).entries) == [b"a", b"b"]


@pytest.mark.parametrize("column", [None, "t"])
def test_a_stream_of_arrow_is_read_as_its_file_is(column, tmp_path):
    table, path = pa.table({"t": ["a", None, "b"]}), tmp_path / "v.arrow"
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)
    assert list(load(path, column=column).entries) == [b"a", None, b"b"]


def test_a_stream_that_is_cut_is_told(tmp_path):
    table, path = pa.table({"t": ["a", "b"]}), tmp_path / "v.arrow"
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(tws.VocabularyError, match="cannot be read as arrow"):
        load(path)


@pytest.mark.parametrize(
    ("source", "entries"),
    [
        (pd.array([1, None, 3], dtype="Int64"), [1, None, 3]),
        (pd.array([(1 << 63) + 1, None], dtype="UInt64"), [(1 << 63) + 1, None]),
        (pd.array(["a", None], dtype="string"), [b"a", None]),
        (pd.Index([1, None], dtype="Int64"), [1, None]),
        (pd.Index(["a", None, "b"]), [b"a", None, b"b"]),
        (pd.Categorical(["b", None, "a"]), [b"b", None, b"a"]),
        (pd.Index([4, 3]), [4, 3]),
    ],
    ids=["Int64", "UInt64", "string", "index of ids", "index", "categorical", "whole"],
)
def test_what_is_missing_in_pandas_arrays_is_a_row_without_an_entry(source, entries):
    assert list(load(source).entries) == entries


def test_an_index_of_fractions_is_refused():
    with pytest.raises(tws.VocabularyError, match="holds float"):
        load(pd.Index([1.5, np.nan]))
