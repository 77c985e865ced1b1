"""The vocabulary join equals the loop, whatever the bytes, the sizes and the hashes."""

from __future__ import annotations

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.entries import as_tensor
from torch_warmstart.vocabularies import entry_index, hashing
from torch_warmstart.vocabularies import join as join_module
from torch_warmstart.vocabularies.hashing import hash_entries
from torch_warmstart.vocabularies.join import join, work_of
from torch_warmstart.vocabularies.loading import read_entries as read_vocabulary

TOKENS = st.lists(st.binary(max_size=40), min_size=1, max_size=30, unique=True)


@pytest.fixture(scope="module", autouse=True)
def _however_few():
    """What is joined here is few entries; `test_few_entries` has those that a dict looks up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join_module, "_SMALL", 0)
        yield


def _weak_hash(vocabulary, block):
    """Three values for everything: nearly all equal hashes are collisions."""
    return (vocabulary.places_of(block)[1] % 3) << 60


@pytest.fixture(params=["real hash", "weak hash"])
def any_hash(request, monkeypatch):
    if request.param == "weak hash":
        monkeypatch.setattr(entry_index, "hash_entries", _weak_hash)


def _both(new, old, device="cpu"):
    return join(read_vocabulary(new, device), read_vocabulary(old, device)).rows.tolist()


def _repeat(entries):
    """The places of an old entry that is there twice."""
    return join(read_vocabulary(entries[:1]), read_vocabulary(entries)).repeat


def test_rows_follow_their_entries(any_hash, device):
    new = ["orange", "guava", "banana", "apple", "raspberry"]
    old = ["apple", "banana", "guava", "orange"]
    assert _both(new, old, device) == [3, 2, 1, 0, -1]


@given(new=TOKENS, old=TOKENS, data=st.data())
def test_join_equals_the_loop(new, old, data):
    shared = data.draw(st.lists(st.sampled_from(old), unique=True))
    new = list(dict.fromkeys([*shared, *new]))
    assert _both(new, old) == oracle.remap(new, old)


@given(new=TOKENS, old=TOKENS, data=st.data())
def test_join_equals_the_loop_when_nearly_all_hashes_collide(new, old, data):
    shared = data.draw(st.lists(st.sampled_from(old), unique=True))
    new = [*shared, *new, *shared]  # the new side may repeat itself
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_index, "hash_entries", _weak_hash)
        assert _both(new, old) == oracle.remap(new, old)


def test_integer_ids_are_joined_by_value(device):
    assert _both([7, -3, 2**62, 8], [2**62, 7, 9, -3], device) == [1, 3, 0, -1]


def test_tokens_that_differ_only_in_trailing_zero_bytes_are_different():
    assert _both([b"a\0", b"a", b"a\0\0"], [b"a", b"a\0"]) == [1, 0, -1]


def test_tokens_longer_than_a_block_of_words_differ_by_their_last_byte():
    long = b"x" * 1000
    assert _both([long + b"a", long + b"b"], [long + b"b"]) == [-1, 0]


@pytest.mark.parametrize("size", [1023, 1024, 1025, 1032, 5000])
def test_long_tokens_differ_wherever_they_differ(size, device):
    token = b"y" * size
    others = [bytes([*token[:at], 7, *token[at + 1 :]]) for at in (0, size // 2, size - 1)]
    assert _both([token, *others], [others[1], token], device) == [1, -1, 0, -1]
    assert _both([token], [token[:-1], token + b"y"], device) == [-1]


def test_one_line_of_ten_megabytes_is_joined_at_once():
    line = bytes(range(11, 251)) * 45_000
    assert _both([line, line[:-1] + b"x"], [b"a", line]) == [1, -1]


def test_entries_in_several_blocks_are_all_joined(monkeypatch):
    monkeypatch.setattr(hashing, "_FEWEST", 1)
    monkeypatch.setattr(hashing, "BLOCK", 7)
    monkeypatch.setattr(entry_index, "BLOCK", 7)
    new, old = [f"token{n}" for n in range(50)], [f"token{n}" for n in range(80, 20, -1)]
    assert _both(new, old) == oracle.remap(new, old)


@pytest.mark.parametrize("grain", [1, 7, 1000])
def test_entries_in_several_steps_and_pieces_are_all_joined(monkeypatch, grain, device):
    monkeypatch.setattr(hashing, "_FEWEST", 1)
    monkeypatch.setattr(hashing, "BLOCK", grain)
    monkeypatch.setattr(entry_index, "BLOCK", grain)
    monkeypatch.setattr(hashing, "_STRIDE", 3 * grain)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    new, old = [f"token{n}" for n in range(50)], [f"token{n}" for n in range(80, 20, -1)]
    assert _both(new, old, device) == oracle.remap(new, old)
    assert _both([*new, *new], old, device) == oracle.remap([*new, *new], old)


@pytest.mark.parametrize("entries", [["a", "bb", "c", "dd"], [1, 2, 3, 4]])
def test_a_join_tells_of_all_its_work(monkeypatch, entries):
    monkeypatch.setattr(hashing, "_STRIDE", 3)
    new, old = read_vocabulary(entries), read_vocabulary(entries[1:])
    told = []
    join(new, old, lambda _, nbytes: told.append(nbytes))
    assert sum(told) == work_of(new, old)


def test_nothing_is_joined_with_one_entry():
    nothing = read_vocabulary(["b"]).slice(0, 0)
    joined = join(nothing, read_vocabulary(["a"]))
    assert (joined.rows.tolist(), joined.num_present) == ([], 0)


@given(new=TOKENS, old=TOKENS, data=st.data())
def test_what_is_present_is_counted_among_collisions_too(new, old, data):
    new = [*new, *data.draw(st.lists(st.sampled_from(old)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_index, "hash_entries", _weak_hash)
        joined = join(read_vocabulary(new), read_vocabulary(old))
    assert joined.num_present == sum(entry in old for entry in new)


def test_whether_rows_may_be_shared_is_told():
    old = read_vocabulary(["a", "b"])
    assert not join(read_vocabulary(["b", "x", "y", "a"]), old).may_share
    assert not join(read_vocabulary(["b", "x", "x", "a"]), old).may_share
    assert join(read_vocabulary(["b", "x", "b", "a"]), old).may_share


def test_a_repeated_entry_is_found(any_hash):
    assert _repeat(["c", "b", "a", "b", "a"]) == (1, 3)
    assert _repeat(["c", "b", "a"]) is None


def test_a_repeated_id_is_found():
    assert _repeat([5, 6, 5]) == (0, 2)
    assert _repeat([5, 6, 7]) is None


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=40))
def test_a_repeat_is_found_if_and_only_if_there_is_one(entries):
    assert _repeat(entries) == _first_repeat(entries)


@given(st.lists(st.sampled_from([b"a", b"b", b"cc", b"dd", b"eee", b"fff"]), min_size=1))
def test_a_repeat_is_found_among_collisions(entries):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_index, "hash_entries", _weak_hash)
        found = _repeat(entries)
    assert (found is None) == (_first_repeat(entries) is None)
    if found is not None:
        first, second = found
        assert first < second
        assert entries[first] == entries[second]


def _first_repeat(entries):
    """Of all that are there twice, the one that is met first."""
    seen = {}
    for at, entry in enumerate(entries):
        if entry in seen:
            return seen[entry], at
        seen[entry] = at
    return None


def test_ids_that_differ_only_in_their_high_bits_are_told_apart():
    """The bits of a hash beside an entry's number hold too little of them."""
    new, old = [n << 56 for n in range(-100, 100)], [n << 56 for n in range(120, -120, -1)]
    assert _both(new, old) == oracle.remap(new, old)


def test_similar_tokens_collide_as_rarely_as_random_bits_do():
    """In the high bits, which are all that is kept: 40 of them, of half a million entries."""
    tokens = read_vocabulary([f"user_{n:06d}_x" for n in range(500_000)])
    hashes = as_tensor(hash_entries(tokens, slice(0, len(tokens))))
    assert len(torch.unique(hashes)) == 500_000
    assert 500_000 - len(torch.unique(hashes >> 24)) < 10
