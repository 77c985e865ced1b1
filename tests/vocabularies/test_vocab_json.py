"""JSON by its content: entries by row where it is a vocabulary, a sentence where it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

import torch_warmstart as tws


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("[11, 12]", [11, 12]),
        ("[\n  11,\n  12\n]\n", [11, 12]),
        ("[-1]", [-1]),
        (' [ "a" ]', [b"a"]),
        ('["a", "b"]', [b"a", b"b"]),
        ('{"a": 1, "b": 0}', [b"b", b"a"]),
        ("[11\n[12\n", [b"[11", b"[12"]),  # lines that begin like it
        ("[11]\n[12]\n", [b"[11]", b"[12]"]),
        ("[\n]\n", [b"[", b"]"]),
    ],
)
def test_entries_of_json_and_of_lines_that_are_none(
    text: str, entries: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "v.txt"
    path.write_text(text)
    assert list(tws.Vocabulary.load(path).entries) == entries


@pytest.mark.parametrize(
    "text", ["[1, [2]]", "[true]", "[1.5]", "[]", "{}", "[[1], 2]", '[{"a": 1}]']
)
def test_json_that_is_no_vocabulary_is_not_read_as_lines(text: str, tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text(text)
    with pytest.raises(tws.VocabularyError, match="is JSON"):
        tws.Vocabulary.load(path)


@pytest.mark.parametrize(
    "text", ['{"a": 0, "b": 1, "a": 2}', '{"model": {"vocab": {"a": 0, "a": 1}}}']
)
def test_a_token_with_two_rows_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(text)
    with pytest.raises(tws.VocabularyError, match="'a' twice"):
        tws.Vocabulary.load(path)


def test_a_list_of_objects_is_no_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text('[{"token": "a", "id": 0}, {"token": "b", "id": 1}]')
    with pytest.raises(tws.VocabularyError, match="a list of JSON's, not a line for each"):
        tws.Vocabulary.load(path, column="token")


@pytest.mark.parametrize("row", [2**63, 2**64 - 1, 10**30])
def test_a_row_that_no_table_has_is_told_as_it_stands(row: int) -> None:
    with pytest.raises(tws.VocabularyError, match=f"has row {row:,}: .* no table has that many"):
        tws.Vocabulary.load({"a": row, "b": 0})
