"""A table that says which row each entry has is not read as one entry a row, in order."""

from __future__ import annotations

import pytest

import torch_warmstart as tws

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")

IN_MEMORY = {
    "pandas": lambda table: table,
    "polars": polars.from_pandas,
    "pyarrow": pyarrow.Table.from_pandas,
    "chunks": lambda table: pyarrow.concat_tables(
        [pyarrow.Table.from_pandas(table[:2]), pyarrow.Table.from_pandas(table[2:])]
    ),
    "reader": lambda table: pyarrow.Table.from_pandas(table).to_reader(),
}
KINDS = ["csv", "tsv", "jsonl", "parquet", *IN_MEMORY]


@pytest.fixture
def with_a_gap(tmp_path):
    """`a` has row 0 and `c` row 2, as Parquet."""
    first = tws.update_vocabulary(["a", "b", "c"], {"a": 1, "b": 1, "c": 1}, today=1)
    path = tmp_path / "v.parquet"
    tws.update_vocabulary(first, {"a": 1, "c": 1}, expire_after=0, today=2).save(path)
    return path


def _rewritten(path, kind):
    table = pandas.read_parquet(path)
    if kind == "frame":
        return table
    other = path.with_suffix(f".other.{kind}")
    {"parquet": table.to_parquet, "csv": table.to_csv}[kind](other, index=False)
    return other


def test_as_it_was_saved_each_entry_has_its_row(with_a_gap):
    assert tws.Vocabulary.load(with_a_gap).rows(["a", "c"]).tolist() == [0, 2]


@pytest.mark.parametrize("column", ["entry", 0])
def test_a_column_of_what_was_saved_is_refused(with_a_gap, column):
    with pytest.raises(tws.VocabularyError, match="in its column 'row' which row each entry has"):
        tws.Vocabulary.load(with_a_gap, column=column)


@pytest.mark.parametrize("kind", ["parquet", "csv", "frame"])
def test_so_is_one_of_a_table_that_others_wrote_anew(with_a_gap, kind):
    with pytest.raises(tws.VocabularyError, match="in its column 'row' which row each entry has"):
        tws.Vocabulary.load(_rewritten(with_a_gap, kind), column="entry")


def test_its_values_by_themselves_are_in_order(with_a_gap):
    values = pandas.read_parquet(with_a_gap)["entry"]
    assert tws.Vocabulary.load(values).rows(["a", "c"]).tolist() == [0, 1]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["id", "token_id", "Id", "itemIdx", "no", "code", "Unnamed: 0"])
@pytest.mark.parametrize("kind", KINDS)
def test_another_order_than_that_of_the_lines_is_refused(kind, name, first, tmp_path):
    table = pandas.DataFrame({"token": ["c", "a", "b"], name: [2 + first, first, 1 + first]})
    held = _held(table, tmp_path, kind)
    with pytest.raises(tws.VocabularyError, match=f"numbers its entries in column '{name}'"):
        tws.Vocabulary.load(held, column="token")


@pytest.mark.parametrize("dtype", ["float32", "float64", "category", "Int16"])
@pytest.mark.parametrize("kind", [*KINDS, "feather"])
def test_so_it_is_whatever_type_holds_the_numbers(kind, dtype, tmp_path):
    """Beside a row without one, which is gone since, pandas makes floating numbers of all."""
    table = pandas.DataFrame({"token": ["c", "a", "b"], "id": [2, 0, 1]}).astype({"id": dtype})
    with pytest.raises(tws.VocabularyError, match="numbers its entries in column 'id', from 0 to"):
        tws.Vocabulary.load(_held(table, tmp_path, kind), column="token")
    others = pandas.DataFrame({"token": ["c", "a", "b"], "id": [2, 0, None]}).astype({"id": object})
    others = others.astype({"id": "float64" if dtype in ("float32", "float64") else "Int16"})
    others = others.astype({"id": dtype})
    assert len(tws.Vocabulary.load(_held(others, tmp_path, kind), column="token")) == 3


@pytest.mark.parametrize("kind", [*KINDS, "feather"])
def test_text_by_a_dictionary_numbers_nothing(kind, tmp_path):
    table = pandas.DataFrame({"token": ["c", "a", "b"], "id": pandas.Categorical(["y", "z", "x"])})
    assert len(tws.Vocabulary.load(_held(table, tmp_path, kind), column="token")) == 3


def test_a_damaged_column_beside_is_named():
    damaged = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([2, 0], pyarrow.int8()), pyarrow.array([0, 1]), safe=False
    )
    with pytest.raises(tws.VocabularyError, match="Column 'id' names entries that its dictionary"):
        tws.Vocabulary.load(pyarrow.table({"token": ["a", "b"], "id": damaged}), column="token")


@pytest.mark.parametrize(
    "numbers",
    [[*range(2, 12)], [*range(5), *range(7, 12)], [19, 2, 4, 6, 8, 10, 12, 0, 16, 18]],
    ids=["from 2 on", "with a gap", "shuffled, with gaps"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_so_are_rows_that_begin_later_and_gaps(kind, numbers, tmp_path):
    table = pandas.DataFrame({"token": [*"abcdefghij"], "id": numbers})
    held = _held(table, tmp_path, kind)
    with pytest.raises(tws.VocabularyError, match="otherwise than by the order of its lines"):
        tws.Vocabulary.load(held, column="token")


@pytest.mark.parametrize(
    ("begin", "last", "is_told"),
    [(0, 15, True), (0, 16, False), (1, 16, True), (1, 17, False)],
    ids=["from 0", "from 0, too far", "from 1", "from 1, too far"],
)
@pytest.mark.parametrize("kind", [*KINDS, "words and ids"])
def test_gaps_are_told_that_are_no_more_than_entries(kind, begin, last, is_told, tmp_path):
    numbers = [*range(begin, begin + 7), last]
    if kind == "words and ids":
        held, column = tmp_path / "v.txt", None
        held.write_text(
            "".join(f"{word} {one}\n" for word, one in zip("abcdefgh", numbers, strict=True))
        )
    else:
        table = pandas.DataFrame({"token": [*"abcdefgh"], "id": numbers})
        held, column = _held(table, tmp_path, kind), "token"
    told = "numbers its entries|a table with spaces between"
    if is_told:
        with pytest.raises(tws.VocabularyError, match=told):
            tws.Vocabulary.load(held, column=column)
    else:
        assert len(tws.Vocabulary.load(held, column=column)) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_twice_or_far_between_are_of_something_else(kind, tmp_path):
    table = pandas.DataFrame({"token": [*"abcdefghij"], "year": range(1990, 2000), "age": 5})
    loaded = tws.Vocabulary.load(_held(table, tmp_path, kind), column="token")
    assert len(loaded) == 10


@pytest.mark.parametrize("column", [None, "token", 0])
def test_so_is_an_index_of_pandas_that_has_a_name(column):
    table = pandas.DataFrame({"id": [2, 3, 4], "token": ["c", "a", "b"]})
    with pytest.raises(tws.VocabularyError, match="numbers its entries in column 'id'"):
        tws.Vocabulary.load(table.set_index("id"), column=column)
    unnamed = table.set_index("id").rename_axis(None)
    assert len(tws.Vocabulary.load(unnamed, column=column)) == 3
    in_order = table.assign(id=[1, 2, 3]).set_index("id")
    assert len(tws.Vocabulary.load(in_order, column=column)) == 3
    text = table.assign(id=["x", "y", "z"]).set_index("id")
    assert len(tws.Vocabulary.load(text, column="token")) == 3


def test_a_column_by_its_number_is_that_of_a_frame_with_numbers_for_names():
    table = pandas.DataFrame({1: [5, 6], 0: ["a", "b"]}, index=[1, 0])
    assert list(tws.Vocabulary.load(table, column=1).entries) == [b"a", b"b"]


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2], [1, 2, 3], [7, 3, 9], [2, 2, 0], [3.5, 1.0, 2.0], ["2", "1", "x"]]
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_other_order_is_not(kind, numbers, tmp_path):
    table = pandas.DataFrame({"token": ["c", "a", "b"], "id": numbers})
    loaded = tws.Vocabulary.load(_held(table, tmp_path, kind), column="token")
    assert loaded.rows(["c", "a", "b"]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("order", [[2, 0, 1], [2, 1, 0]])
@pytest.mark.parametrize("kind", ["csv", "parquet", "feather"])
def test_nor_is_an_index_of_pandas_in_another_order(kind, order, tmp_path):
    table, path = pandas.DataFrame({"token": ["a", "b", "c"]}).iloc[order], tmp_path / f"v.{kind}"
    if kind == "feather":
        from pyarrow import Table, feather

        feather.write_feather(Table.from_pandas(table), path)
    else:
        {"csv": table.to_csv, "parquet": table.to_parquet}[kind](path)
    with pytest.raises(tws.VocabularyError, match="otherwise than by the order .*pass a mapping"):
        tws.Vocabulary.load(path, column="token")


def test_a_range_of_pandas_that_goes_back_is_told(tmp_path):
    path = tmp_path / "v.parquet"
    pandas.DataFrame({"token": ["a", "b", "c"]})[::-1].to_parquet(path)
    with pytest.raises(tws.VocabularyError, match="numbers its entries by the index of pandas"):
        tws.Vocabulary.load(path, column="token")


def test_numbers_without_a_name_are_told(tmp_path):
    path = tmp_path / "v.tsv"
    path.write_text("2\tc\n0\ta\n1\tb\n")
    with pytest.raises(tws.VocabularyError, match="numbers its entries in column 'f0'"):
        tws.Vocabulary.load(path, column=1)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["count", "Frequency", "genre_size", "last_seen"])
def test_counts_are_no_numbers_of_entries(name, kind, tmp_path):
    table = pandas.DataFrame({"token": ["c", "a", "b"], name: [3, 1, 2]})
    loaded = tws.Vocabulary.load(_in_file(table, tmp_path, kind), column="token")
    assert loaded.rows(["c", "a", "b"]).tolist() == [0, 1, 2]


def test_nor_are_counts_without_a_name(tmp_path):
    path = tmp_path / "v.tsv"
    path.write_text("c\t3\na\t2\nb\t1\n")
    assert tws.Vocabulary.load(path, column=0).rows(["c", "a", "b"]).tolist() == [0, 1, 2]


def _held(table, folder, kind):
    return IN_MEMORY[kind](table) if kind in IN_MEMORY else _in_file(table, folder, kind)


def _in_file(table, folder, kind):
    path = folder / f"v.{kind}"
    if kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif kind == "parquet":
        table.to_parquet(path)
    elif kind == "feather":
        table.to_feather(path)
    else:
        table.to_csv(path, index=False, sep={"csv": ",", "tsv": "\t"}[kind])
    return path
