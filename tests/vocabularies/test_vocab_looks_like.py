"""A vocabulary that is written some other way is named, and lines that are entries are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def load(path: Path, text: str, **how: str) -> list[bytes | int | None]:
    path.write_bytes(text.encode())
    return list(tws.Vocabulary.load(path, **how).entries)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("['a', 'b', 'c']\n", "is a list or a dict as Python prints it"),
        ("{'a': 0, 'b': 1}", "is a list or a dict as Python prints it"),
        ("[b'a', b'b']\n", "is a list or a dict as Python prints it"),
        ("a\rb\rc\r", "ends its lines by returns alone"),
        ("a;0\nb;1\nc;2\n", "seems to be a table with semicolons between its cells"),
        ("token;n\na;5\nb;9\n", "seems to be a table with semicolons between its cells"),
        ("1|a\n2|b\n3|c\n", "seems to be a table with bars between its cells"),
        ("the 1061396\nof 593677\nand 416629\n", "seems to be a table with spaces between"),
        ("0 a\n1 b\n2 c\n", "seems to be a table with spaces between its cells"),
        ("     12 a\n      5 b\n      5 c\n", "seems to be a table with spaces between"),
        ("a 0\nb 1\nc 2\n", "seems to be a table with spaces between its cells"),
        ("a 1\r\nb 2\r\nc 3\r\n", "seems to be a table with spaces between its cells"),
        ("<eps> 0\na 1\nb 2\nc 3\nd 4\ne 5\n#0 8\n<s> 9\n", "with spaces between its cells"),
    ],
)
def test_what_is_written_otherwise_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(tws.VocabularyError, match=words) as refused:
        load(tmp_path / "vocab", text)
    assert "as a sequence" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "[UNK]\n[PAD]\n",
        "{\n}\n",
        "'s\n't\n",
        "('s\n",
        "in 2020\nin 1999\nin 2010\n",
        "Area 1\nRoute 6\nStudio 54\n",
        "Apollo 1\nGemini 8\nVostok 12\nSkylab 20\nDelta 33\nTitan 40\nAtlas 55\nZenit 60\n",
        "Area 51\nRoute 66\n",
        "token 0\ntoken 1\ntoken 2\n",
        "a;b\nc;d\ne;f\n",
        "a\rb\nc\n",
        "a\r",
        "New York 3\nRoute 2\nArea 1\n",  # three words in one
    ],
)
def test_lines_that_only_begin_alike_are_entries(tmp_path: Path, text: str) -> None:
    lines = text.removesuffix("\n").split("\n")
    assert load(tmp_path / "vocab", text) == [line.removesuffix("\r").encode() for line in lines]


@pytest.mark.parametrize(
    "lines",
    [
        ["a 0", "b 1", "c 2"],
        ["a\t0", "b\t1", "c\t2"],
        ["a\tx\t0", "b\ty\t1", "c\tz\t2"],
        ["#version: 0.2", "a b", "b c"],
        ["a 0.5 1.5 2.5 3.5 4.5", "b 0.5 1.5 2.5 3.5 4.5"],
    ],
)
def test_who_says_lines_gets_lines(tmp_path: Path, lines: list[str]) -> None:
    text, entries = "\n".join([*lines, ""]), [line.encode() for line in lines]
    with pytest.raises(tws.VocabularyError):
        load(tmp_path / "vocab", text)
    assert load(tmp_path / "vocab", text, format="lines") == entries
    said = tws.Vocabulary.load(tmp_path / "vocab", format="lines")
    table = nn.Embedding(len(lines), 2)
    settings = tws.WarmStartSettings(table, None, {"weight": tws.VocabInfo(said, old_vocab=said)})
    model = nn.Embedding(len(lines), 2)
    tws.warm_start(model, settings)
    assert torch.equal(model.weight, table.weight)


@pytest.mark.parametrize("text", ["a\0b\n", '["a", "b"]\n', "['a', 'b']\n", "a\rb\r"])
def test_what_can_be_no_lines_is_refused_even_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(tws.VocabularyError):
        load(tmp_path / "vocab", text, format="lines")
