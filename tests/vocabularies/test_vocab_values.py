"""A vocabulary as a value: rows, special rows, fingerprint, and a file of it."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torch_warmstart as tws

TEXT = st.lists(st.text(max_size=5), min_size=1, max_size=12, unique=True)
IDS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=12, unique=True)
load = tws.Vocabulary.load


def as_bytes(entries):
    return [e.encode("utf-8", "surrogateescape") if isinstance(e, str) else e for e in entries]


@given(st.one_of(TEXT, IDS))
def test_entries_and_their_rows_are_those_of_the_list(entries):
    vocab = load(entries)
    assert len(vocab) == len(entries)
    assert list(vocab.entries) == as_bytes(entries)
    assert [vocab.entries[row] for row in range(-1, len(entries) - 1)] == as_bytes(
        [entries[-1], *entries[:-1]]
    )
    assert vocab.rows(entries).tolist() == list(range(len(entries)))


def test_what_is_not_listed_has_no_row():
    assert load(["a", "b"]).rows(["b", "x", "b"]).tolist() == [1, -1, 1]
    assert load([5, 7]).rows([]).tolist() == []
    with pytest.raises(tws.VocabularyError, match="holds text and"):
        load(["a"]).rows([1])


@pytest.mark.parametrize(
    "entries", [torch.tensor(1), np.array(1), slice(1), iter("ab")], ids=lambda e: type(e).__name__
)
def test_what_are_no_entries_is_told(entries):
    with pytest.raises(tws.WarmStartError, match="A vocabulary"):
        load(["a"]).rows(entries)


def test_a_mapping_leads_to_rows_and_leaves_gaps():
    vocab = load({"c": 5, "a": 0, "b": 2})
    assert list(vocab.entries) == [b"a", None, b"b", None, None, b"c"]
    assert vocab.entries[1] is None
    assert vocab.entries[5] == b"c"
    assert vocab.rows(["b", "c", "x"]).tolist() == [2, 5, -1]
    ordered = load({"a": 0, "b": 1})
    assert ordered.fingerprint == load(["a", "b"]).fingerprint


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({}, "at least one entry"),
        ({"a": 1, "b": 1}, "two entries of row 1: 'a' and 'b'"),
        ({"a": -1}, "row -1"),
        ({"a": 1 << 60}, "no table has that many"),
        ({"a": 0.5}, "leads to float"),
        ({"a": "b"}, "leads to str"),
        ({0: "b", 1: "a"}, "leads to str. Turn it round: {entry: row"),
        ({"a": 0, 1: 1}, "all str, all bytes or all int"),
    ],
)
def test_a_mapping_that_is_none_is_refused(mapping, says):
    with pytest.raises(tws.VocabularyError, match=says):
        load(mapping)


def test_keras_rows_in_front_are_special():
    vocab = load(["", "[UNK]", "[UNK]", "a"])
    assert dict(vocab.special) == {"mask": range(1), "oov": range(1, 3)}
    assert list(vocab.entries) == [b"", None, None, b"a"]
    assert vocab.rows(["a", ""]).tolist() == [3, 0]
    assert dict(load(["[UNK]", "a"]).special) == {"oov": range(1)}
    assert dict(load(["a", "[UNK]"]).special) == {}
    assert dict(load(["", "a"]).special) == {}


def test_none_is_a_row_without_an_entry():
    vocab = load(["a", None, "b"])
    assert list(vocab.entries) == [b"a", None, b"b"]
    assert vocab.rows(["b"]).tolist() == [2]


@pytest.mark.parametrize(
    "asked",
    [
        ["b", None, "a"],
        np.array(["b", None, "a"], dtype=object),
        np.array(["[UNK]", "[UNK]", "a"], dtype=object),
        np.ma.masked_array([b"b", b"-", b"a"], mask=[False, True, False]),
    ],
    ids=["list", "objects", "keras", "masked"],
)
def test_what_is_looked_up_has_a_row_for_each(asked):
    vocab = load(["a", "x", "b"])
    assert vocab.rows(asked).tolist() in ([2, -1, 0], [-1, -1, 0])
    assert vocab.rows(load(["b", None, "a"])).tolist() == [2, -1, 0]


@given(st.one_of(TEXT, IDS))
def test_a_saved_vocabulary_is_read_as_it_was(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("v") / "vocab.safetensors"
    before = load(entries)
    before.save(path)
    after = load(path)
    assert list(after.entries) == list(before.entries)
    assert after.fingerprint == before.fingerprint
    assert after.rows(entries).tolist() == list(range(len(entries)))


@pytest.mark.parametrize(
    "source",
    [
        {"b": 3, "a": 1},
        ["", "[UNK]", "[UNK]", "a"],
        {-5: 0, 7: 4},
        np.array([1 << 63, 5], dtype=np.uint64),
    ],
)
def test_special_rows_gaps_and_signs_are_saved(tmp_path, source):
    before = load(source)
    before.save(tmp_path / "v")
    after = load(tmp_path / "v")
    assert list(after.entries) == list(before.entries)
    assert after.special == before.special
    assert after.fingerprint == before.fingerprint


def test_a_saved_vocabulary_is_a_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    load({"b": 3, "aa": 1}).save(tmp_path / "v")
    found = load_file(tmp_path / "v")
    assert {name: value.tolist() for name, value in found.items()} == {
        "bytes": list(b"aab"),
        "lengths": [2, 1],
        "rows": [1, 3],
    }


def test_a_damaged_file_is_refused_wherever_it_is_cut_or_flipped(tmp_path):
    path = tmp_path / "v"
    load({"b": 3, "aa": 1, "c": 4}).save(path)
    whole = path.read_bytes()
    for at in range(3, len(whole)):  # of less than that nobody can tell what it was
        path.write_bytes(whole[:at])
        with pytest.raises(tws.VocabularyError):
            load(path)
        flipped = bytearray(whole)
        flipped[at] ^= 0x41
        path.write_bytes(flipped)
        with contextlib.suppress(tws.VocabularyError):
            list(load(path).entries)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    with pytest.raises(tws.SettingsError, match="cannot be written"):
        load(["a"]).save(tmp_path / "no" / "v")
    assert list(tmp_path.iterdir()) == []


def test_a_fingerprint_tells_rows_special_rows_and_kinds_apart():
    sources = [
        ["a", "b"],
        ["b", "a"],
        ["ab", ""],
        ["a", "b", "c"],
        {"a": 0, "b": 2},
        [1, 2],
        ["1", "2"],
        ["[UNK]", "a"],
        [-1, 2],
        np.array([(1 << 64) - 1, 2], dtype=np.uint64),
    ]
    prints = [load(source).fingerprint for source in sources]
    assert len(set(prints)) == len(prints)
    assert all(each.startswith("1:") and len(each) == 34 for each in prints)


def test_a_fingerprint_does_not_depend_on_where_the_entries_lie(tmp_path):
    (tmp_path / "v.txt").write_bytes(b"a\r\nbc\r\n")
    of_file = load(tmp_path / "v.txt").fingerprint
    assert of_file == load(["a", "bc"]).fingerprint == load(np.array(["a", "bc"])).fingerprint


def test_it_shows_what_it_is():
    shown = repr(load(["", "[UNK]", "[UNK]", "a"]))
    assert "4 rows, 2 entries (text), mask 0, oov 1-2" in shown


def test_it_goes_wherever_a_vocabulary_is_taken():
    new, old = load(["c", "a"]), load(["a", "b", "c"])
    assert tws.generate_vocab_remapping(new, old)[0].tolist() == [2, 0]
    info = tws.VocabInfo(new, old_vocab=old)
    model, weight = torch.nn.Embedding(2, 1), torch.arange(3.0).reshape(3, 1)
    settings = tws.WarmStartSettings({"weight": weight}, var_name_to_vocab_info={"weight": info})
    tws.warm_start(model, settings)
    assert model.weight.flatten().tolist() == [2.0, 0.0]


def test_a_header_that_lies_about_sizes_is_refused(tmp_path):
    path = tmp_path / "v"
    load(["aa", "b"]).save(path)
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["bytes"]["data_offsets"][1] = 1 << 40
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    with pytest.raises(tws.VocabularyError, match="damaged"):
        load(path)
