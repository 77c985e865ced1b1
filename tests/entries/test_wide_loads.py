"""Long entries are loaded many words at a time: how wide does not show in what comes of it."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.entries import as_vector, words
from torch_warmstart.vocabularies import hashing
from torch_warmstart.vocabularies import join as join_module
from torch_warmstart.vocabularies.hashing import hash_entries
from torch_warmstart.vocabularies.join import join
from torch_warmstart.vocabularies.loading import read_entries

# Between and around the widths that are loaded at a time, and where entries count as long.
LENGTHS = st.sampled_from(
    [1, 7, 8, 20, 63, 64, 65, 128, 200, 511, 512, 513, 1023, 1024, 1025, 1100]
)


def _entries(lengths: list[int], seed: int) -> list[bytes]:
    """Each with a number of its own at its beginning and a byte at its end that may differ."""
    return [b"%d:" % at + b"x" * length + b"%d" % (seed * at % 3) for at, length in lengths]


@given(lengths=st.lists(LENGTHS, min_size=1, max_size=12), end=st.integers(0, 2))
def test_a_join_of_all_lengths_equals_the_loop(lengths, end):
    old = _entries(list(enumerate(lengths)), 1)
    new = list(dict.fromkeys(_entries(list(enumerate(lengths)), end)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join_module, "_SMALL", 0)
        assert join(read_entries(new), read_entries(old)).rows.tolist() == oracle.remap(new, old)


@given(lengths=st.lists(LENGTHS, min_size=1, max_size=8), width=st.integers(1, 20))
def test_a_hash_does_not_depend_on_how_wide_loads_are(lengths, width):
    entries = read_entries(_entries(list(enumerate(lengths)), 1))
    everything = slice(0, len(entries))
    usual = hash_entries(entries, everything)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "width_of", lambda _count, _size: width * words.WORD)
        assert np.array_equal(hash_entries(entries, everything), usual)
    for at in range(len(entries)):  # alone, its neighbours decide nothing
        assert hash_entries(entries, slice(at, at + 1)).tolist() == [usual[at].item()]


@given(
    rows=st.lists(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    factors=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
)
def test_a_weighted_sum_is_modulo_two_to_the_64(rows, factors):
    tensor = torch.tensor(rows, dtype=torch.int64)
    found = words.weighted(tensor, factors)
    assert words.weighted(as_vector(tensor), factors).tolist() == found.tolist()
    expected = [sum(a * b for a, b in zip(row, factors, strict=True)) % 2**64 for row in rows]
    assert [number % 2**64 for number in found.tolist()] == expected


@pytest.mark.parametrize("count", [1, 8, 9, 40])
def test_words_combined_are_zero_only_where_all_are(count, device):
    rows = torch.zeros(count + 1, count, dtype=torch.int64, device=device)
    rows[:count].fill_diagonal_(1 << 40)
    for vector in (rows, as_vector(rows)):
        assert (words.combined(vector) == 0).tolist() == [False] * count + [True]


@pytest.mark.parametrize(
    ("count", "size", "width"),
    [(0, 0, 64), (10, 200, 64), (10, 2_900, 320), (10, 90_000, 512), (65_536, 65_536 * 300, 64)],
)
def test_a_load_is_as_wide_as_entries_are_long_unless_they_are_many(count, size, width):
    assert words.width_of(count, size) == width
