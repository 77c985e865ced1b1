"""Columns that are stored as something else than they are, and nulls of what holds a column."""

from __future__ import annotations

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

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


@pytest.mark.parametrize("values", [["a", 1], ["a", 1.5], [1, "a"], [2**70, 1]], ids=str)
@pytest.mark.parametrize("kind", ["series", "frame"])
def test_objects_of_several_kinds_are_told_as_a_list_of_them_is(kind, values):
    column = pd.Series(values, dtype=object)
    source = column if kind == "series" else pd.DataFrame({"t": column})
    said = "all str, all bytes or all int|beyond 64 bits with or without a sign"
    with pytest.raises(tws.VocabularyError, match=said):
        load(source)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA], ids=str)
def test_ids_without_a_sign_may_be_objects_of_pandas(missing):
    high = 2**64 - 1
    assert list(load(pd.Series([high, 1], dtype=object)).entries) == [high, 1]
    assert list(load(pd.Series([missing, high], dtype=object)).entries) == [None, high]


TENSORS = {
    "sparse_coo": lambda: torch.tensor([0, 4]).to_sparse(),
    "meta": lambda: torch.zeros(2, dtype=torch.int64, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3])]),
    "dtype": lambda: torch.ones((2, 2), dtype=torch.uint64),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse_coo", "meta", "quantized", "nested"])
def test_tensors_that_are_no_plain_vector_say_what_to_pass(kind):
    with pytest.raises(tws.VocabularyError, match=f"a plain vector of integer ids; .*{kind}.*pass"):
        load(TENSORS[kind]())


def test_a_matrix_of_ids_without_a_sign_is_no_vector():
    with pytest.raises(tws.VocabularyError, match=r"not torch.uint64 of shape \(2, 2\)"):
        load(TENSORS["dtype"]())
