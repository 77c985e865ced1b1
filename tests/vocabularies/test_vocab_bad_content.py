"""Every way to read a file, with every other content: a vocabulary, or one sentence of ours."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_warmstart as tws

pytest.importorskip("pyarrow")
TOKENS = ["aa", "bb", "cc", "dd"]
HOW: dict[str, dict[str, Any]] = {
    "by content": {},
    "a column": {"column": "token"},
    "the first column": {"column": 0},
    **{form: {"format": form} for form in ("lines", "vocab", "tiktoken")},
    **{form: {"format": form, "column": "token"} for form in ("csv", "tsv", "jsonl")},
}
STRANGERS = {
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(1, 256)),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(range(1, 256)),
    "pdf": b"%PDF-1.4\nobj\n",
    "pickle": pickle.dumps(TOKENS),
    "html": b"<!DOCTYPE html><html><body>404</body></html>\n",
    "xml": b'<?xml version="1.0"?>\n<a/>\n',
    "random": random.Random(0).randbytes(600),
    "utf16": "aa\nbb\n".encode("utf-16"),
    "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
    "empty": b"",
    "compressed": gzip.compress(b"\xff\xd8\xff\xe0\x00\x10JFIF"),
    "cut": gzip.compress(b"aa\nbb\n" * 500)[:-12],
    "nested json": json.dumps({"a": {"b": 1}}).encode(),
}
# What is a vocabulary, in the words above; whatever is not here is refused.
RIGHT = {
    ("lines", "by content"): TOKENS,
    ("lines", "lines"): TOKENS,
    ("lines", "the first column"): TOKENS,
    ("csv", "a column"): TOKENS,
    ("csv", "csv"): TOKENS,
    ("csv", "lines"): ["id,token", *(f"{at},{t}" for at, t in enumerate(TOKENS))],  # if one insists
    ("tsv", "lines"): ["id\ttoken", *(f"{at}\t{t}" for at, t in enumerate(TOKENS))],
    ("tsv", "a column"): TOKENS,
    ("tsv", "tsv"): TOKENS,
    ("parquet", "a column"): TOKENS,
    ("jsonl", "a column"): TOKENS,
    ("jsonl", "jsonl"): TOKENS,
    ("jsonl", "the first column"): TOKENS,
    ("vocab.json", "by content"): TOKENS,
    ("tokenizer.json", "by content"): TOKENS,
    ("tiktoken", "by content"): TOKENS,
    ("tiktoken", "tiktoken"): TOKENS,
    ("npy", "by content"): TOKENS,
    ("scored", "by content"): ["<unk>", *TOKENS],
    ("scored", "lines"): ["<unk>\t0", *(f"{t}\t-{at}.5" for at, t in enumerate(TOKENS))],
    ("scored", "vocab"): ["<unk>", *TOKENS],
    ("scored", "the first column"): ["<unk>", *TOKENS],
}
# Text has no form of its own: so are read what is a table of one column, or lines, if one insists.
AS_TEXT = {("tiktoken", "lines"), ("tiktoken", "the first column")}
FORMS = sorted({name for name, _ in RIGHT})


def write(folder: Path, name: str) -> str:
    path = folder / name.replace(" ", "_").replace(".", "_")
    tables = {"csv": ",", "tsv": "\t"}
    if name in STRANGERS:
        path.write_bytes(STRANGERS[name])
    elif name in tables:
        rows = [("id", "token"), *((str(at), token) for at, token in enumerate(TOKENS))]
        path.write_text("".join(tables[name].join(row) + "\n" for row in rows))
    elif name == "lines":
        path.write_text("".join(f"{token}\n" for token in TOKENS))
    elif name == "jsonl":
        path.write_text("".join(json.dumps({"token": token}) + "\n" for token in TOKENS))
    elif name == "scored":
        path.write_text("<unk>\t0\n" + "".join(f"{t}\t-{at}.5\n" for at, t in enumerate(TOKENS)))
    elif name == "tiktoken":
        coded = [base64.b64encode(token.encode()).decode() for token in TOKENS]
        path.write_text("".join(f"{token} {at}\n" for at, token in enumerate(coded)))
    elif name == "npy":
        with open(path, "wb") as file:
            np.save(file, np.array(TOKENS))
    elif name == "parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"id": range(len(TOKENS)), "token": TOKENS})
        pyarrow.parquet.write_table(table, path)
    else:
        vocab = {token: at for at, token in enumerate(TOKENS)}
        whole = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab}}
        path.write_text(json.dumps(vocab if name == "vocab.json" else whole))
    return str(path)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", [*FORMS, *STRANGERS])
def test_a_file_is_a_vocabulary_or_one_sentence(tmp_path: Path, name: str, how: str) -> None:
    path = write(tmp_path, name)
    if (name, how) in RIGHT:
        found = tws.Vocabulary.load(path, **HOW[how])
        assert list(found.entries) == [entry.encode() for entry in RIGHT[name, how]]
        return
    if (name, how) in AS_TEXT:
        assert len(tws.Vocabulary.load(path, **HOW[how])) == len(TOKENS)
        return
    if name == "parquet" and how == "the first column":
        assert list(tws.Vocabulary.load(path, column=0).entries) == [0, 1, 2, 3]
        return
    with pytest.raises((tws.VocabularyError, tws.SettingsError)) as raised:
        tws.Vocabulary.load(path, **HOW[how])
    text = str(raised.value)
    assert path in text
    assert "\n" not in text
    assert text.isprintable()
    assert len(text.replace(path, "")) < 400


@pytest.mark.parametrize("how", HOW)
def test_a_directory_without_a_vocabulary_and_a_file_of_tensors(tmp_path: Path, how: str) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    for path in (tmp_path, tmp_path / "x.pt", tmp_path / "nowhere"):
        with pytest.raises(tws.WarmStartError) as raised:
            tws.Vocabulary.load(str(path), **HOW[how])
        assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("jpeg", "csv", "is a JPEG image, and is to be read as csv: leave format= out"),
        ("html", "by content", "is a page of HTML, as a server sends it"),
        ("parquet", "csv", "is a Parquet table, and is to be read as csv"),
        ("tokenizer.json", "tiktoken", "is JSON, and is to be read as tiktoken"),
        ("vocab.json", "the first column", "is one JSON document, not a line for each entry"),
        ("jsonl", "by content", "is JSON lines: say which of their names has the entries"),
        ("csv", "by content", "seems to be a csv, not one entry a line"),
        ("tsv", "by content", "seems to be a tsv, not one entry a line"),
        ("csv", "vocab", "no piece, a tab and its score"),
    ],
)
def test_what_it_is_is_named(tmp_path: Path, name: str, how: str, words: str) -> None:
    with pytest.raises(tws.VocabularyError) as raised:
        tws.Vocabulary.load(write(tmp_path, name), **HOW[how])
    assert words in str(raised.value)


def test_entries_with_commas_are_entries(tmp_path: Path) -> None:
    path = tmp_path / "places"
    path.write_text("Paris, France\nLondon, England\nOslo, Norway\n")
    assert len(tws.Vocabulary.load(str(path))) == 3
    path.write_text("id,token\n1,aa\n2,bb\n")
    assert len(tws.Vocabulary.load(str(path), format="lines")) == 3
    path.write_text("3,17\n5,1\n12,9\n")  # a feature crossed with another
    assert len(tws.Vocabulary.load(str(path))) == 3


def test_entries_with_control_characters_are_entries(tmp_path: Path) -> None:
    entries = [f"{a}\1{b}" for a in "abcdef" for b in "uvwxyz"]  # as Hive joins cells
    path = tmp_path / "crossed"
    path.write_text("".join(f"{entry}\n" for entry in entries))
    assert [entry.decode() for entry in tws.Vocabulary.load(str(path)).entries] == entries


@pytest.mark.parametrize("dtype", ["<i8", "<U4", "<U0", "|O", "|V8", "<U999999999"])
@pytest.mark.parametrize("shape", ["1000000000000,", "99999999999999999999,", "-1,", "True,", "2,"])
def test_an_array_whose_header_lies_is_our_error(shape, dtype, tmp_path):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}".ljust(117)
    path = tmp_path / "v.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\n" + b"x" * 8)
    with pytest.raises(tws.VocabularyError, match="cannot be read as text or integers"):
        tws.Vocabulary.load(path)


@pytest.mark.parametrize("value", [["a", "b"], {"a": 0}, ("a", "b"), {"a"}], ids=str)
@pytest.mark.parametrize("protocol", [0, 5])
def test_a_pickle_is_no_vocabulary(value, protocol, tmp_path):
    path = tmp_path / "v.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(tws.VocabularyError, match="is a pickle|is binary"):
        tws.Vocabulary.load(path)


def test_names_of_columns_that_are_no_utf8_are_told_or_do_not_matter(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes(b"caf\xe9,n\na,5\n")
    try:
        read = [*tws.Vocabulary.load(path, column="n").entries]
    except tws.VocabularyError as error:
        read = str(error)
    # pyarrow 16 looks at the name that is asked for only.
    assert read == [b"5"] or "names are no UTF-8" in read


@pytest.mark.parametrize(
    "content", [b"\n\x05abcde", b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x99"]
)
def test_what_is_called_a_model_and_begins_as_one_is_read_as_one(tmp_path, content):
    (tmp_path / "cut.model").write_bytes(content)
    with pytest.raises(tws.VocabularyError, match="is no model of sentencepiece's"):
        tws.Vocabulary.load(tmp_path / "cut.model")
