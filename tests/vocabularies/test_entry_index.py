"""The hash table that entries are looked up in: whatever is in it, it finds what a dict finds."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.entries import entries as entries_module
from torch_warmstart.errors import VocabularyError
from torch_warmstart.vocabularies import entry_index, hashing
from torch_warmstart.vocabularies import join as join_module
from torch_warmstart.vocabularies.entry_index import EntryIndex, index_once, index_work
from torch_warmstart.vocabularies.loading import read_entries

IDS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=60, unique=True)


@pytest.fixture(params=["arrays", "tensors"])
def vectors(request, monkeypatch):
    """On a CPU vectors are numpy's arrays; tensors, as they are elsewhere, give the same."""
    if request.param == "tensors":
        for module in (entries_module, entry_index, hashing, join_module):
            monkeypatch.setattr(module, "as_vector", lambda tensor: tensor)


def _expected(known, wanted):
    rows = {entry: at for at, entry in enumerate(known)}
    return [rows.get(entry, -1) for entry in wanted]


# What keys are made of: all in one cell, in few, in neighbours, in the last ones, negative ones,
# one hash for two of them, and hashes that differ only in bits that no key has.
HASHES = {
    "one cell": lambda ids: ids & 0xFFF | 1 << 62,
    "three cells": lambda ids: (ids % 3) << 61 | (ids & 0xFF) << 20,
    "neighbours": lambda ids: ids << 48,
    "the last cells": lambda ids: -1 - (ids & 0xFF) * (1 << 40),
    "steps alike": lambda ids: ids << 40,
    "two of one hash": lambda ids: (ids >> 1) << 44,
    "bits that no key has": lambda ids: ids & 0xF,
    "none": lambda ids: ids * 0,
    "all bits": lambda ids: ids * 0 - 1,
}


@pytest.mark.parametrize("hashes", HASHES)
@given(known=IDS, others=IDS, data=st.data())
def test_ids_are_found_whatever_their_hashes_are(hashes, known, others, data):
    wanted = [*data.draw(st.lists(st.sampled_from(known))), *others]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            entry_index,
            "hash_entries",
            lambda entries, block: HASHES[hashes](entries.ids[block]).numpy().copy(),
        )
        index = EntryIndex(read_entries(known))
        assert index.repeat is None
        assert index.find(read_entries(wanted)).tolist() == _expected(known, wanted)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 127, 128, 129, 1000, 5000])
def test_every_number_of_entries_is_found(count, device):
    known = read_entries(torch.arange(count) * 7919, device)
    wanted = read_entries(torch.arange(-1, 2 * count) * 7919, device)
    found = EntryIndex(known).find(wanted)
    assert found.tolist() == [-1, *range(count), *[-1] * count]


@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_threads_that_write_at_once_lose_nothing(monkeypatch, block):
    monkeypatch.setattr(entry_index, "BLOCK", block)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    ids = torch.arange(300) * 2654435761
    for _ in range(5):
        assert EntryIndex(read_entries(ids)).find(read_entries(ids)).tolist() == [*range(300)]


@pytest.mark.parametrize("count", [17, 18, 100])
def test_blocks_may_be_longer_than_a_cpus(monkeypatch, count):
    """As they are elsewhere."""
    monkeypatch.setattr(entry_index, "BLOCK", 17)
    monkeypatch.setattr(entry_index, "blocks", lambda count, device, size: [slice(0, count)])
    ids = torch.arange(count) * 7
    assert EntryIndex(read_entries(ids)).find(read_entries(ids)).tolist() == [*range(count)]


def _as_text(ids):
    return [number.to_bytes(8, "big", signed=True) for number in ids.tolist()]


@pytest.mark.parametrize("made", [torch.Tensor.tolist, _as_text], ids=["ids", "text"])
@pytest.mark.parametrize("step", [1, 10**6, 1 << 40, -3])
@pytest.mark.parametrize("seed", [39437, 1, 2, 3])
def test_what_counts_up_is_placed_as_soon_as_anything_else(monkeypatch, made, step, seed):
    monkeypatch.setattr(hashing, "_SALT", hashing._Salt(seed.to_bytes(4, "little")))
    attempts = []
    place = entry_index._Cells.place

    def counted(cells, keys, attempt):
        attempts.append(attempt)
        return place(cells, keys, attempt)

    monkeypatch.setattr(entry_index._Cells, "place", counted)
    EntryIndex(read_entries(made(torch.arange(30_000) * step)))
    assert max(attempts) < 60


@pytest.mark.parametrize(
    ("entries", "repeat"),
    [
        ([1, 2, 1, 3, 3], (0, 2)),
        ([1, 3, 3, 2, 1], (1, 2)),
        ([5, 1, 2, 3, 1, 2], (1, 4)),
        ([1, 2, 3, 4], None),
        ([1, 1, 1], (0, 1)),
    ],
)
def test_of_repeats_the_first_is_named_though_others_have_their_hash(monkeypatch, entries, repeat):
    monkeypatch.setattr(
        entry_index, "hash_entries", lambda entries, block: entries.ids[block].numpy() * 0
    )
    assert EntryIndex(read_entries(entries)).repeat == repeat


@pytest.mark.parametrize("is_strict", [False, True])
@pytest.mark.parametrize("length", [1, 7, 8, 30, 300, 1500])
def test_a_join_is_the_same_of_arrays_and_of_tensors(vectors, monkeypatch, length, is_strict):
    monkeypatch.setattr(join_module, "_SMALL", 0)
    monkeypatch.setattr(hashing, "_STRIDE", 200)
    texts = [b"%d" % at + b"x" * (at * 7 % length) for at in range(500)]
    known, wanted = texts[:400], texts[100:]
    torch.use_deterministic_algorithms(is_strict)
    try:
        for old, new in ((known, wanted), ([*range(400)], [*range(100, 500)])):
            joined = join_module.join(read_entries(new), read_entries(old))
            assert joined.rows.tolist() == [*range(100, 400), *[-1] * 100]
            assert (joined.num_present, joined.may_share) == (300, False)
            assert joined_twice(old) == (3, 400)
    finally:
        torch.use_deterministic_algorithms(False)


def joined_twice(old):
    return join_module.join(read_entries(old), read_entries([*old, old[3]])).repeat


def test_nothing_is_found_among_no_entries():
    nothing = read_entries([5]).slice(0, 0)
    assert EntryIndex(nothing).find(read_entries([5, 6])).tolist() == [-1, -1]
    assert EntryIndex(read_entries([5])).find(nothing).tolist() == []


def test_an_index_tells_of_all_its_work(monkeypatch):
    monkeypatch.setattr("torch_warmstart.vocabularies.hashing._STRIDE", 3)
    for entries in (read_entries(["a", "bb", "c", "dd"]), read_entries([1, 2, 3, 4])):
        told = []
        EntryIndex(entries, lambda _, nbytes, told=told: told.append(nbytes))
        assert sum(told) == index_work(entries)


def test_an_entry_that_is_there_twice_is_named():
    with pytest.raises(VocabularyError, match=r"has an entry twice: 'b' \(entry 2\) and 'b' \(ent"):
        index_once(read_entries(["a", "b", "c", "b", "b"]))


def test_the_number_of_cells_is_a_prime_above_every_step():
    for least in (3, 257, 258, 512, 4_000_001):
        found = entry_index._next_prime(least)
        assert found >= least
        assert all(found % divisor for divisor in range(2, int(found**0.5) + 1))
    sizes = [entry_index._Cells(count, torch.device("cpu"))._size for count in (1, 128, 129, 999)]
    assert all(size > entry_index._STEPS for size in sizes)
    assert all(a <= b for a, b in itertools.pairwise(sizes))
