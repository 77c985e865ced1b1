"""Columns that export Arrow: pyarrow's, polars', pandas', read by no library but ours."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import torch_warmstart as tws

load = tws.Vocabulary.load
TEXT = ["a", "", None, "日本", "a rather long entry beyond twelve bytes", "é"]
TYPES = [pa.string(), pa.large_string(), pa.string_view()]
RAW_TYPES = [pa.binary(), pa.large_binary(), pa.binary_view()]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def encoded(values):
    return [v.encode() if isinstance(v, str) else v for v in values]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_text_of_every_layout(kind):
    assert list(load(pa.array(TEXT, kind)).entries) == encoded(TEXT)


@pytest.mark.parametrize("kind", RAW_TYPES, ids=str)
def test_binary_of_every_layout(kind):
    values = [b"a", None, b"\xff\x00", b"x" * 40]
    assert list(load(pa.array(values, kind)).entries) == values


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_width(kind):
    info = np.iinfo(kind)
    values = [int(info.min), None, int(info.max)]
    array = pa.array(values, getattr(pa, kind)())
    assert list(load(array).entries) == values


@pytest.mark.parametrize("kind", [*TYPES, pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_slice_of_an_array_is_that_slice(kind):
    array = pa.array(TEXT, pa.string()).cast(kind) if "dict" not in str(kind) else None
    if array is None:
        array = pa.array(TEXT, pa.string()).dictionary_encode()
    for start in range(len(TEXT) - 1):
        kept = TEXT[start : start + 2]
        if any(value is not None for value in kept):
            assert list(load(array.slice(start, 2)).entries) == encoded(kept)


def test_dictionaries_are_looked_through():
    array = pa.array(["b", "a", None, "b2"]).dictionary_encode()
    assert list(load(array).entries) == [b"b", b"a", None, b"b2"]
    numbers = pa.array([7, 5, 9]).dictionary_encode()
    assert list(load(numbers).entries) == [7, 5, 9]
    assert list(load(pd.Series(["x", "y"], dtype="category")).entries) == [b"x", b"y"]
    assert list(load(pl.Series(["x", "y"], dtype=pl.Categorical)).entries) == [b"x", b"y"]


@given(st.lists(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=4), min_size=1))
def test_chunks_are_one_behind_the_other(chunks):
    flat = [value for chunk in chunks for value in chunk]
    for kind in (pa.string(), pa.string_view()):
        column = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind)
        if any(value is not None for value in flat):
            assert list(load(column).entries) == encoded(flat)
        else:
            with pytest.raises(tws.VocabularyError, match="at least one entry"):
                load(column)


def test_columns_of_pandas_and_polars():
    for column in (pd.Series(["x", None, "zz"]), pl.Series(["x", None, "zz"])):
        assert list(load(column).entries) == [b"x", None, b"zz"]
    for column in (pd.Series([3, 1]), pl.Series([3, 1])):
        assert list(load(column).entries) == [3, 1]
    assert list(load(pd.Index(["p", "q"])).entries) == [b"p", b"q"]


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_table_needs_a_column_unless_it_has_one(frame):
    assert list(load(frame({"t": ["a", "b"]})).entries) == [b"a", b"b"]
    table = frame({"n": [1, 2], "t": ["a", "b"]})
    assert list(load(table, column="t").entries) == [b"a", b"b"]
    assert list(load(table, column=0).entries) == [1, 2]
    with pytest.raises(tws.VocabularyError, match=r"columns 'n', 't': .*column='n'"):
        load(table)
    with pytest.raises(tws.VocabularyError, match="no column 'x'"):
        load(table, column="x")


def test_columns_called_alike_and_numbers_below_zero():
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["t", "t"])
    with pytest.raises(tws.VocabularyError, match="has 2 columns that are called 't'"):
        tws.Vocabulary.load(twice, column="t")
    with pytest.raises(tws.VocabularyError, match="no column -5"):
        tws.Vocabulary.load(twice, column=-5)


def test_a_slice_of_a_table_is_that_slice():
    table = pa.record_batch({"n": [1, 2, 3], "t": ["a", "b", "c"]}).slice(1, 2)
    assert list(load(table, column="t").entries) == [b"b", b"c"]
    assert list(load(pa.array(TEXT).slice(3, 2)).entries) == encoded(TEXT[3:5])


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([1.5]), "text, binary or integers"),
        (pa.array([True]), "text, binary or integers"),
        (pa.array([["a"]]), "text, binary or integers"),
        (pa.array([], pa.string()), "at least one entry"),
        (pa.array([None], pa.string()), "at least one entry"),
    ],
)
def test_a_column_of_another_kind_is_refused(column, says):
    with pytest.raises(tws.VocabularyError, match=says):
        load(column)


def test_a_column_of_one_column_takes_no_name():
    with pytest.raises(tws.VocabularyError, match="of no use"):
        load(pa.array(["a"]), column="a")


@pytest.mark.parametrize("kind", [*TYPES, pa.int64()], ids=str)
def test_no_entry_becomes_a_python_object(kind):
    column = pa.array(np.arange(50_000)).cast(pa.string()).cast(kind)
    load(column)
    before = sys.getallocatedblocks()
    kept = load(column)
    assert sys.getallocatedblocks() - before < 2_000
    assert len(kept) == 50_000


def test_the_entries_outlive_the_column():
    column = pa.array([f"entry number {n}" for n in range(1_000)])
    vocab = load(column)
    del column
    noise = [bytearray(64) for _ in range(10_000)]
    assert vocab.entries[999] == b"entry number 999"
    del noise


def test_binary_of_one_width_is_read_where_it_lies():
    array = pa.array([b"abc", None, b"x\0z", b"abd"], pa.binary(3))
    assert list(load(array).entries) == [b"abc", None, b"x\0z", b"abd"]
    assert list(load(array[2:]).entries) == [b"x\0z", b"abd"]
    some = pa.chunked_array([array[:1], array[3:]])
    assert list(load(some).entries) == [b"abc", b"abd"]


@pytest.mark.parametrize("order", [1, -1], ids=["behind", "before"])
@pytest.mark.parametrize("count", [0, 2], ids=["empty", "null"])
@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.string(), pa.string_view()], ids=str)
def test_a_chunk_whose_dictionary_is_empty_is_of_the_kind_of_the_others(kind, count, order):
    """Else the ids of the other chunks would be empty texts."""
    entries = [9, 8] if pa.types.is_integer(kind) else ["nine", "a text beyond twelve bytes"]
    parts = [
        pa.DictionaryArray.from_arrays(pa.array(indices, pa.int64()), pa.array(values, kind))
        for indices, values in (([0, 1], entries), ([None] * count, []))
    ]
    column = pa.chunked_array(parts[::order])
    expected = (encoded(entries), [None] * count)[::order]
    assert list(load(column).entries) == [*expected[0], *expected[1]]


def test_what_an_empty_dictionary_does_not_have_is_no_null():
    indices, values = pa.array([0, 0], pa.int8()), pa.array([], pa.string())
    damaged = pa.DictionaryArray.from_arrays(indices, values, safe=False)
    with pytest.raises(tws.VocabularyError, match="names entries that its dictionary does not"):
        load(damaged)


def test_a_stream_of_ids_by_a_dictionary_is_read(tmp_path):
    """As programs write row groups of categories, of which one has nothing but nulls."""
    parts = [pa.array(ids, pa.int32()).dictionary_encode() for ids in ([9, 8], [None, None])]
    table = pa.table({"id": pa.chunked_array(parts)})
    path = tmp_path / "ids.arrows"
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table)
    assert list(load(path, column="id").entries) == [9, 8, None, None]
