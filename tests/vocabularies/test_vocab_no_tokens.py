"""Files that lie beside a vocabulary, or hold its vectors, are not read as one."""

from __future__ import annotations

import json

import pytest

import torch_warmstart as tws


@pytest.fixture
def load(tmp_path):
    """Loads a file of this name and content."""

    def loaded(name, content, **more):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tws.Vocabulary.load(path, **more)

    return loaded


def test_settings_are_no_tokens(load):
    with pytest.raises(tws.VocabularyError, match="2 names, and numbers up to 5: .*settings"):
        load("config.json", json.dumps({"vocab_size": 5, "hidden": 3}))


def test_a_few_gaps_are(load):
    assert list(load("vocab.json", '{"a": 0, "b": 3}').entries) == [b"a", None, None, b"b"]


def test_merges_are_no_tokens(load):
    with pytest.raises(tws.VocabularyError, match="merges, not its tokens: pass the vocab.json"):
        load("merges.txt", "#version: 0.2\nĠ t\nh e\ni n\n")


ROW = " ".join(["0.125", "-3", "2e-05", "1.5"] * 8)


@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("behind", ["", " "])
@pytest.mark.parametrize("first", ["", "{count} 32\n"])
def test_vectors_are_no_entries(load, first, behind, count):
    lines = "".join(f"word{number} {ROW}{behind}\n" for number in range(count))
    with pytest.raises(tws.VocabularyError, match="words and their vectors, .*the first word"):
        load("wiki.vec", first.format(count=count) + lines)


def test_so_are_some_that_are_longer_than_what_is_looked_at(load):
    row = " ".join(["0.125"] * 1000)
    with pytest.raises(tws.VocabularyError, match="words and their vectors"):
        load("glove.txt", f"the {row}\nof {row}\n")


@pytest.mark.parametrize(
    "content",
    [
        "1 2 3 4 5 6\n2 2 3 4 5 6\n",
        "a 1.5 2\nb 2.5 3\n",
        "version 1 2 3 4 0.5\nold\n",
        "#version: 0.2\na b c\n",
    ],
)
def test_entries_with_numbers_are_lines(load, content):
    assert list(load("v.txt", content).entries) == content.encode().splitlines()


@pytest.mark.parametrize("entries", [["a", None, "b"], [1, None, 3]], ids=["text", "ids"])
def test_null_in_a_list_of_json_is_a_row_without_an_entry(load, entries):
    expected = [e.encode() if isinstance(e, str) else e for e in entries]
    assert list(load("v.json", json.dumps(entries)).entries) == expected
