"""Cells, lines and documents of tables that may be slips: none is an entry, none is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

import torch_warmstart as tws

pytest.importorskip("pyarrow")


def loaded(path: Path, text: str, **how: str | int) -> list[bytes | int | None]:
    path.write_text(text)
    return list(tws.Vocabulary.load(path, **how).entries)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "row", "column"),
    [
        ("token,n\na,1\n,2\nb,3\n", 2, "token"),
        ("token\na\n\nb\n", 2, "token"),  # as a csv a line without a cell is one of a blank one
        ("a\n\n\n", 2, 0),
        ("a,1\r\n,2\r\n", 2, 0),
    ],
)
def test_a_blank_cell_of_a_csv_is_refused_with_its_place(
    tmp_path: Path, text: str, row: int, column: str | int
) -> None:
    with pytest.raises(tws.VocabularyError, match=f"the cell of row {row} is blank.*None where"):
        loaded(tmp_path / "some.csv", text, column=column)


def test_a_blank_line_of_a_wide_table_is_no_row_that_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(tws.VocabularyError, match="the cell of row 2 is blank"):
        loaded(tmp_path / "some.tsv", "token\tn\na\t1\n\nb\t2\n", column="token")


def test_blanks_that_are_characters_or_quoted_are_entries(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a.csv", 'token,n\n"",1\nb,2\n', column="token") == [b"", b"b"]
    assert loaded(tmp_path / "a.csv", 'token,n\n" ",1\nNA,2\n', column="token") == [b" ", b"NA"]


def test_blank_cells_of_another_column_are_nobody_s(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a.csv", "token,n\na,\nb,\n", column="token") == [b"a", b"b"]


def test_json_lines_may_be_one(tmp_path: Path) -> None:
    line = '{"token": "a", "id": 7}\n'
    assert loaded(tmp_path / "a.jsonl", line, column="token") == [b"a"]
    assert loaded(tmp_path / "a.ndjson", line, column="id") == [7]
    assert loaded(tmp_path / "a.txt", line, column="token", format="jsonl") == [b"a"]
    with pytest.raises(tws.VocabularyError, match="if it is JSON lines.* write format='jsonl'"):
        loaded(tmp_path / "a.txt", line, column="token")


def test_lines_that_look_like_a_table_say_what_to_write_for_both(tmp_path: Path) -> None:
    text = "Boston,02101\nRome,00100\nOslo,00150\n"
    with pytest.raises(tws.VocabularyError) as refused:
        loaded(tmp_path / "zip.txt", text)
    assert "Vocabulary.load(..., column=0, format='csv')" in str(refused.value)
    assert "Vocabulary.load(..., format='lines')" in str(refused.value)
    assert loaded(tmp_path / "zip.txt", text, column=0, format="csv")[0] == b"Boston"
    assert loaded(tmp_path / "zip.txt", text, format="lines")[0] == b"Boston,02101"


@pytest.mark.parametrize("text", ["tok,n\na,1\nb,2\n", 'tok,n\n"a,b",1\nb,-2.5\n'])
def test_names_above_numbers_are_no_entry_of_a_column_by_number(tmp_path: Path, text: str) -> None:
    with pytest.raises(tws.VocabularyError, match="seems to have names in its first line"):
        loaded(tmp_path / "a.csv", text, column=0)
    assert len(loaded(tmp_path / "a.csv", text, column="tok")) == 2
    assert len(loaded(tmp_path / "a.csv", text.split("\n", 1)[1], column=0)) == 2


def test_a_column_is_named_or_counted(tmp_path: Path) -> None:
    for column in (-1, 2):
        with pytest.raises(tws.VocabularyError, match="has 2 columns, counted from 0"):
            loaded(tmp_path / "a.csv", "a,1\nb,2\n", column=column)
    with pytest.raises(tws.SettingsError, match="a column's name or number, not True"):
        loaded(tmp_path / "a.csv", "a,1\nb,2\n", column=True)


def test_what_is_said_of_a_directory_is_never_ignored(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    assert len(tws.Vocabulary.load(tmp_path)) == 2
    with pytest.raises(tws.SettingsError, match="column='token' is for files by themselves"):
        tws.Vocabulary.load(tmp_path, column="token")
    with pytest.raises(tws.SettingsError, match="format='lines' is for files by themselves"):
        tws.Vocabulary.load(tmp_path, format="lines")
