"""Files as vocabularies: compressed ones, tables, and what is none."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma

import cramjam
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import torch_warmstart as tws

load = tws.Vocabulary.load
ENTRIES = [b"a", b"bb", "ü".encode(), b"c,d", b'q"q']
LINES = b"\n".join(ENTRIES) + b"\n"
PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: bytes(cramjam.zstd.compress(data)),
}


def write(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_file_is_its_content(tmp_path, packer):
    path = write(tmp_path, "v.txt", PACKERS[packer](LINES))  # its name does not say so
    assert list(load(path).entries) == ENTRIES
    info = tws.VocabInfo(path, old_vocab=ENTRIES)
    assert info.new_vocab == path


@pytest.mark.parametrize("packer", ["gz", "bz2", "xz"])
def test_streams_one_behind_the_other_are_one_file(tmp_path, packer):
    pack = PACKERS[packer]
    assert list(load(write(tmp_path, "v", pack(b"a\n") + pack(b"b\n"))).entries) == [b"a", b"b"]


@pytest.mark.parametrize("packer", PACKERS)
def test_a_cut_or_flipped_compressed_file_is_refused(tmp_path, packer):
    whole = PACKERS[packer](LINES * 3)
    for at in range(8, len(whole) - 1):
        with pytest.raises(tws.VocabularyError, match="damaged"):
            load(write(tmp_path, "v", whole[:at]))
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        with contextlib.suppress(tws.VocabularyError):
            load(write(tmp_path, "v", bytes(flipped)))


@pytest.mark.parametrize("packer", PACKERS)
def test_what_unfolds_without_end_is_refused(tmp_path, packer, monkeypatch):
    from torch_warmstart.vocabularies.loading import compression

    monkeypatch.setattr(compression, "_ALWAYS", 1 << 16)
    bomb = PACKERS[packer](b"a" * (8 << 20))
    with pytest.raises(tws.VocabularyError, match="unfolds to more than"):
        load(write(tmp_path, "v", bomb))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", b'n,token\n1,a\n2,"b,""b"\n3,""\n'),
        ("t.tsv", b'n\ttoken\n1\ta\n2\tb,"b\n3\tc\n'),
        ("t.csv.gz", gzip.compress(b'n,token\n1,a\n2,"b,""b"\n3,""\n', mtime=0)),
    ],
)
def test_a_column_by_its_name(tmp_path, name, data):
    path = write(tmp_path, name, data)
    third = b"c" if name == "t.tsv" else b""  # which nothing else than quotes can say
    assert list(load(path, column="token").entries) == [b"a", b'b,"b', third]
    assert list(load(path, column="n").entries) == [b"1", b"2", b"3"]  # text, as in lines
    with pytest.raises(tws.VocabularyError, match=r"column"):
        load(path, column="nothing")
    with pytest.raises(tws.VocabularyError, match=r"is a table: say which column.*column=0"):
        load(path)


def test_a_column_by_its_number_has_no_names_above_it(tmp_path):
    path = write(tmp_path, "t.txt", b"a\t0\nb\t1\n")
    assert list(load(path, column=0).entries) == [b"a", b"b"]
    assert list(load(path, column=1, format="tsv").entries) == [b"0", b"1"]
    with pytest.raises(tws.VocabularyError, match=r"column=0, format='tsv'"):
        load(path)


def test_numbers_in_a_csv_keep_their_zeros(tmp_path):
    assert list(load(write(tmp_path, "t.csv", b"id,x\n007,1\nNA,2\n"), column="id").entries) == [
        b"007",
        b"NA",
    ]


def test_json_lines(tmp_path):
    path = write(tmp_path, "t.jsonl", b'{"t": "a", "n": 1}\n{"t": null, "n": 2}\n')
    assert list(load(path, column="t").entries) == [b"a", None]
    assert list(load(path, column="n").entries) == [1, 2]


def test_parquet_and_arrow(tmp_path):
    table = pa.table({"n": [3, 4], "t": ["a", None]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with (
        pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as w,
    ):
        w.write_table(table)
    for name in ("t.parquet", "t.arrow"):
        assert list(load(tmp_path / name, column="t").entries) == [b"a", None]
        assert list(load(tmp_path / name, column=0).entries) == [3, 4]
        with pytest.raises(tws.VocabularyError, match=r"columns 'n', 't'"):
            load(tmp_path / name)


def test_arrays_of_numpy_in_files(tmp_path):
    np.save(tmp_path / "v.npy", np.array(["a", "ü"]))
    assert list(load(tmp_path / "v.npy").entries) == [b"a", "ü".encode()]
    np.save(tmp_path / "o.npy", np.array(["a", None], dtype=object))
    with pytest.raises(tws.VocabularyError, match="cannot be read as text or integers"):
        load(tmp_path / "o.npy")


def test_lists_and_mappings_in_json(tmp_path):
    assert list(load(write(tmp_path, "l.json", b'["a", "b"]')).entries) == [b"a", b"b"]
    path = write(tmp_path, "vocab.json", json.dumps({"b": 2, "ä": 0}).encode())
    assert list(load(path).entries) == ["ä".encode(), None, b"b"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.bin", b"\x00\x01\x02rest", "is binary"),
        ("b.txt", b"\xef\xbb\xbfa\n", "byte-order mark"),
        ("c.json", b'{"a": 1.5}', "is JSON, but neither"),
        ("d.json", b'{"a": [', "begins as JSON does, but is none"),
        ("e.json", b'{"a": ' + b'{"a":' * 50_000, "begins as JSON does, but is none"),
        ("f.json", b'{"model": {"type": "BPE"}}', "not a whole tokenizer.json"),
        ("g.parquet", b"PAR1xx", "cannot be read as parquet"),
        ("h.keras", b"PK\x03\x04xx", "holds no vocabulary that can be read"),
        ("i.txt", b"a\n\nb\n", "line 2 is blank"),
        ("j.txt", b"", "is empty"),
        ("k.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("l.txt", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("m.npy", b"\x93NUMPY\x01\x00", "cannot be read as text or integers"),
    ],
)
def test_what_it_is_not_is_said_in_one_sentence(tmp_path, name, data, says):
    with pytest.raises(tws.VocabularyError, match=says) as caught:
        load(write(tmp_path, name, data))
    assert "\n" not in str(caught.value)


def test_a_table_in_a_file_is_called_by_its_name(tmp_path):
    path = write(tmp_path, "t.csv", b"city,count\nrome,1\n")
    with pytest.raises(tws.VocabularyError, match=r"t\.csv is a table with no column 'town', but"):
        load(path, column="town")


def test_settings_of_no_use_are_refused(tmp_path):
    path = write(tmp_path, "v.txt", b"a\nb\n")
    with pytest.raises(tws.SettingsError, match="format is one of"):
        load(path, format="xml")
    with pytest.raises(tws.SettingsError, match="is for tables"):
        load(path, column=0, format="lines")
    with pytest.raises(tws.SettingsError, match="is for files"):
        load(["a"], key="x")
    with pytest.raises(tws.SettingsError, match="is for tables"):
        load(["a"], column="x")


def test_the_form_can_be_said(tmp_path):
    path = write(tmp_path, "v.csv", b"a,b\nc,d\n")
    assert list(load(path, format="lines").entries) == [b"a,b", b"c,d"]


def test_a_path_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "v.txt", b"a\n")
    assert list(load("~/v.txt").entries) == [b"a"]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(tws.MissingDependencyError, match=r"torch-warmstart\[arrow\]"):
        load(write(tmp_path, "t.csv", b"a,b\n"), column="a")
