"""Entries in arrays: numpy's kinds, tensors, and no Python object on the way."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torch_warmstart as tws

load = tws.Vocabulary.load
# numpy drops zeros at the end of text of one width.
TEXT = st.lists(st.text(max_size=6).filter(lambda t: not t.endswith("\0")), min_size=1, max_size=20)
NUMPY_2 = pytest.mark.skipif(
    not hasattr(np.dtypes, "StringDType"), reason="text of any width came with numpy 2"
)
RAW = st.lists(st.binary(max_size=6).filter(lambda b: not b.endswith(b"\0")), min_size=1)


@given(TEXT)
def test_text_of_one_width_is_encoded_as_python_encodes_it(entries):
    assert list(load(np.array(entries)).entries) == [e.encode() for e in entries]


@given(RAW)
def test_bytes_of_one_width_are_taken_as_they_are(entries):
    assert list(load(np.array(entries)).entries) == entries


@NUMPY_2
@given(st.lists(st.text(max_size=6), min_size=1, max_size=20))
def test_text_of_any_width_is_encoded_too(entries):
    array = np.array(entries, dtype=np.dtypes.StringDType())
    expected = [str(e).encode() for e in array]
    assert [e.rstrip(b"\0") for e in load(array).entries] == [e.rstrip(b"\0") for e in expected]


@NUMPY_2
def test_text_that_is_no_text_of_any_width_is_a_gap():
    dtype = np.dtypes.StringDType(na_object=None)
    vocab = load(np.array(["a", None, "é"], dtype=dtype))
    assert list(vocab.entries) == [b"a", None, "é".encode()]
    dtype = np.dtypes.StringDType(na_object=np.nan)
    assert list(load(np.array(["a", np.nan], dtype=dtype)).entries) == [b"a", None]


def test_bytes_that_were_decoded_with_escapes_are_bytes_again():
    entries = [b"\xff\xfea", "日本\U0001f600".encode()]
    array = np.array([e.decode("utf-8", "surrogateescape") for e in entries])
    assert list(load(array).entries) == entries
    with pytest.raises(tws.VocabularyError, match="surrogate"):
        load(np.array(["\ud800"]))
    with pytest.raises(tws.VocabularyError, match="surrogate"):
        load(["\ud800"])


def test_either_order_of_bytes_is_read():
    assert list(load(np.array(["ab", "ü"]).astype(">U2")).entries) == [b"ab", "ü".encode()]
    assert list(load(np.array([1, -2]).astype(">i4")).entries) == [1, -2]
    assert list(load(np.array([1, 1 << 63], dtype=">u8")).entries) == [1, 1 << 63]


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_integers_of_every_width(dtype):
    info = np.iinfo(dtype)
    values = [info.max, info.min, 5]
    assert list(load(np.array(values, dtype=dtype)).entries) == values
    tensor = torch.from_numpy(np.array(values, dtype=dtype))
    assert list(load(tensor).entries) == values
    assert list(load(values).entries) == values


def test_ids_above_63_bits_are_not_those_below_zero():
    big = np.array([(1 << 64) - 1, 1 << 63, 7], dtype=np.uint64)
    small = [-1, -(1 << 63), 7]
    assert tws.generate_vocab_remapping(big, small)[0].tolist() == [-1, -1, 2]
    assert tws.generate_vocab_remapping(small, big)[0].tolist() == [-1, -1, 2]
    assert tws.generate_vocab_remapping(big, big.tolist())[0].tolist() == [0, 1, 2]
    assert load(big).rows([7, (1 << 64) - 1]).tolist() == [2, 0]


def test_objects_in_an_array_are_what_they_are():
    assert list(load(np.array(["a", b"b"][:1], dtype=object)).entries) == [b"a"]
    assert list(load(np.array([1, 2], dtype=object)).entries) == [1, 2]
    assert list(load(np.array(["a", None], dtype=object)).entries) == [b"a", None]


def test_a_masked_array_has_gaps():
    array = np.ma.MaskedArray([3, 4, 5], mask=[False, True, False])
    assert list(load(array).entries) == [3, None, 5]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (np.zeros((2, 2), dtype=int), "vector of entries"),
        (np.zeros(3), "array.astype"),
        (np.array([True]), "array.astype"),
        (np.array([], dtype="U3"), "at least one entry"),
        (torch.zeros(3), "vector of integer ids"),
        (torch.zeros(2, 2, dtype=torch.int64), "vector of integer ids"),
        ([1, 1 << 64], "beyond 64 bits"),
        ([-1, 1 << 63], "beyond 64 bits"),
        (["a", 1], "holds int, str"),
        (Counter("aab"), "is a Counter, which says how often"),
        ([None, None], "holds NoneType"),
        ([True, False], "holds bool"),
    ],
)
def test_what_is_no_vocabulary_says_so(source, says):
    with pytest.raises(tws.VocabularyError, match=says):
        load(source)


@pytest.mark.parametrize("source", [3, {1, 2}, object(), b"abc", iter(["a"]), None, 2.5])
def test_what_cannot_hold_one_is_refused(source):
    with pytest.raises(tws.SettingsError, match="A vocabulary is a path or URL"):
        load(source)


@pytest.mark.parametrize("kind", ["U", "S", pytest.param("T", marks=NUMPY_2), "i8"])
def test_no_entry_becomes_a_python_object(kind):
    numbers = np.arange(50_000)
    array = numbers if kind == "i8" else numbers.astype("U8")
    if kind == "S":
        array = array.astype("S8")
    if kind == "T":
        array = array.astype(np.dtypes.StringDType())
    assert _most_objects(lambda: load(array)) < 5_000


def _most_objects(work):
    """How many blocks of memory Python has more behind `work`, which keeps what it returns."""
    import sys

    work()
    gc.collect()
    before = sys.getallocatedblocks()
    kept = work()
    more = sys.getallocatedblocks() - before
    del kept
    return more


@pytest.mark.parametrize("kind", ["U", ">U9", "S"])
@pytest.mark.parametrize(
    "entries",
    [["a", "", "bcd"], ["a\0b", "c"], ["\x7f", "x" * 9], ["only"]],
    ids=["empty", "zeros inside", "of seven bits", "one"],
)
def test_text_of_ascii_is_what_python_has(kind, entries):
    array = np.array(entries, dtype=kind)
    expected = [entry.encode() for entry in entries]
    assert list(tws.Vocabulary.load(array).entries) == expected
    assert list(tws.Vocabulary.load(np.repeat(array, 2)[::2]).entries) == expected
    assert list(tws.Vocabulary.load(array).entries) == list(tws.Vocabulary.load(entries).entries)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: torch.tensor([5, 6, 7]), id="tensor"),
        pytest.param(lambda: torch.tensor([5, 6, 7], dtype=torch.int32), id="narrow-tensor"),
        pytest.param(lambda: np.array([5, 6, 7]), id="array"),
        pytest.param(lambda: np.array([5, 6, 7], ">u8"), id="turned-array"),
        pytest.param(lambda: np.array([5, 6, 7], "u8"), id="unsigned-array"),
        pytest.param(lambda: np.array([b"5", b"6", b"7"]), id="text"),
        pytest.param(lambda: np.array(["5", "6", "7"], object), id="objects"),
    ],
)
def test_a_vocabulary_keeps_its_entries_when_what_it_was_made_of_changes(source):
    made_of = source()
    vocabulary = load(made_of)
    made_of[:] = made_of[0]
    assert [int(entry) for entry in vocabulary.entries] == [5, 6, 7]
