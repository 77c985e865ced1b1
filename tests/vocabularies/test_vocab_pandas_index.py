"""What the index of pandas' Series and tables says of a vocabulary."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest

import torch_warmstart as tws

load = tws.Vocabulary.load


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "Int32"])
def test_a_series_of_labels_and_rows_is_a_mapping(dtype, first):
    rows = {"rome": first + 1, "oslo": first, "paris": first + 2}
    loaded = load(pd.Series(rows, dtype=dtype))
    assert list(loaded.entries) == list(load(rows).entries)
    assert loaded.rows(["rome", "oslo", "paris"]).tolist() == list(rows.values())


@pytest.mark.parametrize("values", [[7, 3, 9], [0, 2, 3], [4, 5, 6], [1, 1, 0]], ids=str)
def test_other_numbers_beside_labels_are_ids(values):
    series = pd.Series(values, index=["a", "b", "c"])
    assert next(iter(load(series).entries)) == values[0]


def test_numbers_beside_numbers_are_ids():
    assert list(load(pd.Series([2, 0, 1], index=[5, 6, 7])).entries) == [2, 0, 1]


def test_counts_are_no_rows():
    counts = pd.Series(["a", "b", "a"]).value_counts()
    with pytest.raises(tws.VocabularyError, match="says how often .*pass its labels"):
        load(counts)


def test_a_label_of_two_rows_is_told():
    with pytest.raises(tws.VocabularyError, match="has a label twice"):
        load(pd.Series([0, 1, 2], index=["a", "b", "a"]))


@pytest.mark.parametrize("column", [None, "t"])
def test_an_index_of_numbers_is_no_other_column(column):
    assert list(load(pd.DataFrame({"t": ["a", "b"]}, index=[3, 1]), column=column).entries) == [
        b"a",
        b"b",
    ]


def test_an_index_of_text_may_be_the_entries():
    with pytest.raises(tws.VocabularyError, match="say which one holds the entries"):
        load(pd.DataFrame({"row": [0, 1]}, index=["rome", "oslo"]))


def test_a_column_is_read_whatever_the_others_hold():
    table = pd.DataFrame({"t": ["a", "b"], "mixed": pd.Series([1, "x"], dtype=object)})
    assert list(load(table, column="t").entries) == [b"a", b"b"]


@pytest.mark.parametrize("index", [pd.Index, pd.CategoricalIndex])
@pytest.mark.parametrize("rows", [[3, 2], [0, 1, 2, 3, 5, 6, 7, 9]], ids=str)
def test_so_is_one_whose_rows_begin_later_or_have_gaps(rows, index):
    labels = [*"abcdefgh"][: len(rows)]
    loaded = load(pd.Series(rows, index=index(labels)))
    assert loaded.rows(labels).tolist() == rows


def test_several_labels_of_a_row_are_told():
    with pytest.raises(tws.VocabularyError, match="several labels for each row: pass one level"):
        load(pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")]))


DAY = datetime.date(2026, 1, 1)
SEEN = pd.Series([7, 7, 9])


def counted(old, counts):
    updated = tws.update_vocabulary(old, counts, today=DAY)
    return dict(zip(updated.entries, updated.usage.counts.tolist(), strict=True))


@pytest.mark.parametrize("dtype", [object, "string", "category"], ids=str)
def test_labels_are_what_value_counts_has_counted(dtype):
    seen = pd.Series(["x", None, "a", "x"], dtype=dtype)
    assert counted(["a", "b"], seen.value_counts()) == {b"a": 1, b"b": 0, b"x": 2}


def test_ids_are_what_a_named_column_has_counted():
    named = SEEN.rename("item")
    assert counted([1, 7], named.value_counts()) == {1: 0, 7: 2, 9: 1}
    assert counted([1, 7], named.to_frame().groupby("item").size()) == {1: 0, 7: 2, 9: 1}


@pytest.mark.parametrize("series", [SEEN.value_counts(), SEEN, SEEN[SEEN > 7]], ids=range(3))
def test_numbers_of_lines_are_no_ids_that_were_counted(series):
    # A Series is a column of Arrow's since pandas 3; before, it is nothing that counts can be.
    with pytest.raises((tws.VocabularyError, tws.SettingsError), match="that has a name"):
        counted([0, 1, 2, 7], series)


@pytest.mark.parametrize("column", [1, 2, -1])
@pytest.mark.parametrize("labels", [[3, 1], ["x", "y"]], ids=["numbers", "text"])
def test_an_index_is_no_column_of_any_number(column, labels):
    with pytest.raises(tws.VocabularyError, match=f"no column {column}, but the columns 't'"):
        load(pd.DataFrame({"t": ["a", "b"]}, index=labels), column=column)


@pytest.mark.parametrize("column", [None, 0])
@pytest.mark.parametrize("labels", [[3, 1], ["x", "y"]], ids=["numbers", "text"])
def test_an_index_without_a_column_holds_no_entries(column, labels):
    with pytest.raises(tws.VocabularyError, match="say which one holds the entries"):
        load(pd.DataFrame(index=labels), column=column)
    named = pd.DataFrame(index=pd.Index(labels, name="t"))
    assert list(load(named, column="t").entries) == list(load(labels).entries)


@pytest.mark.parametrize("dtype", ["object", "category", "Int64", "float"])
def test_rows_are_rows_whatever_holds_them(dtype):
    """What a dict was made to a Series with decides nothing but whether it can be read."""
    series = pd.Series({"rome": 1, "oslo": 0, "paris": 2}).astype(dtype)
    if dtype == "float":
        with pytest.raises(tws.VocabularyError, match="floating numbers"):
            load(series)
    else:
        assert list(load(series).entries) == [b"oslo", b"rome", b"paris"]


@pytest.mark.parametrize("dtype", ["object", "Int64"])
def test_a_label_without_a_row_is_told(dtype):
    series = pd.Series([1, None, 0], index=["rome", "bonn", "oslo"], dtype=dtype)
    with pytest.raises(tws.VocabularyError, match=r"a label without a number: .*dropna\(\)"):
        load(series)
    assert list(load(series.dropna()).entries) == [b"oslo", b"rome"]
    ids = pd.Series([7, None, 3], index=["rome", "bonn", "oslo"], dtype=dtype)
    assert list(load(ids).entries) == [7, None, 3]


@pytest.mark.parametrize("dtype", ["object", "str"])
def test_labels_of_which_one_is_missing_are_text(dtype):
    labels = pd.Index(["rome", None, "oslo"], dtype=dtype)
    with pytest.raises(tws.VocabularyError, match="None|float"):
        load(pd.Series([1, 2, 0], index=labels))


def test_ids_beyond_64_bits_beside_labels_are_no_rows():
    series = pd.Series([1 << 64, 0], index=["a", "b"], dtype=object)
    with pytest.raises(tws.VocabularyError, match="beyond 64 bits"):
        load(series)


def test_an_index_of_one_level_is_that_level():
    one = pd.MultiIndex.from_arrays([["b", "a"]])
    assert list(load(one).entries) == [b"b", b"a"]


def test_rows_may_be_categories_of_any_integers():
    series = pd.Series({"rome": 1, "oslo": 0}, dtype="Int16").astype("category")
    assert list(load(series).entries) == [b"oslo", b"rome"]
