"""Columns that are stored as something else than they are, and nulls of what holds a column."""

from __future__ import annotations

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import torch_warmstart as tws

load = tws.Vocabulary.load


@pytest.mark.parametrize("column", [None, "city"])
def test_objects_of_polars_are_no_addresses(column):
    objects = pl.Series("city", ["rome", "oslo"], dtype=pl.Object)
    source = objects if column is None else pl.DataFrame({"n": [1, 2], "city": objects})
    with pytest.raises(tws.VocabularyError, match="holds Python.s objects .*to_list"):
        load(source, column=column)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (pd.Series(pd.period_range("2020", periods=2, freq="Y")), "pandas.period"),
        (pa.array([1, 0], pa.bool8()), "arrow.bool8"),
    ],
    ids=["period", "bool8"],
)
def test_what_integers_stand_for_is_not_read_as_integers(source, name):
    with pytest.raises(tws.VocabularyError, match=f"extension of Arrow's, '{name}'"):
        load(source)


@pytest.mark.parametrize(
    ("source", "entries"),
    [
        (pa.array([b"0" * 16, b"1" * 16], pa.uuid()), [b"0" * 16, b"1" * 16]),
        (pa.array(["1", "2"], pa.json_()), [b"1", b"2"]),
        (pl.Series(["b", "a"], dtype=pl.Categorical), [b"b", b"a"]),
        (pl.Series(["b", "a"], dtype=pl.Enum(["a", "b"])), [b"b", b"a"]),
        (pd.Series(["b", "a"], dtype="category"), [b"b", b"a"]),
    ],
    ids=["uuid", "json", "categorical", "enum", "category"],
)
def test_what_is_stored_as_it_is_stays(source, entries):
    assert list(load(source).entries) == entries


STRUCTS = pa.array([{"k": "a"}, None, {"k": None}, {"k": "b"}])


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_a_null_of_a_struct_is_no_entry(library):
    source = STRUCTS if library == "pyarrow" else pl.Series([{"k": "a"}, None, {"k": "b"}])
    nothing = [None] * (2 if library == "pyarrow" else 1)
    assert list(load(source).entries) == [b"a", *nothing, b"b"]


def test_so_it_is_within_a_slice():
    assert list(load(STRUCTS.slice(1)).entries) == [None, None, b"b"]
    assert list(load(STRUCTS.slice(3)).entries) == [b"b"]
