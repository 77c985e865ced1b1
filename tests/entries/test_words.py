"""Words loaded from any place of a buffer equal those that plain slicing gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.entries.words import (
    WIDEST,
    WORD,
    as_tensor,
    as_vector,
    drop_behind,
    fold,
    load_words,
    words_for,
)

KINDS = pytest.mark.parametrize("kind", [as_vector, as_tensor], ids=["numpy", "torch"])


def _sliced(data: bytes, position: int, size: int) -> list[int]:
    piece = data[position : position + size].ljust(size, b"\0")
    return [
        int.from_bytes(piece[at : at + WORD], "little", signed=True) for at in range(0, size, WORD)
    ]


@KINDS
@given(data=st.binary(min_size=1, max_size=100), count=st.integers(1, 8), draw=st.data())
def test_words_equal_slices_also_at_the_end_of_the_buffer(kind, data, count, draw):
    positions = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    words = load_words(kind(buffer), kind(torch.tensor(positions, dtype=torch.int64)), count)
    assert words.tolist() == [_sliced(data, position, count * WORD) for position in positions]
    assert words.shape == (len(positions), count)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_words_are_the_same_on_every_device(count, device):
    data = torch.arange(200, dtype=torch.uint8)
    positions = torch.tensor([0, 1, 7, 8, 100, 136, 190, 199, 200])
    words = load_words(data.to(device), positions.to(device), count)
    assert words.cpu().tolist() == load_words(data, positions, count).tolist()


@KINDS
@given(
    lengths=st.lists(st.integers(0, 2 * WIDEST), min_size=1, max_size=20), count=st.integers(1, 8)
)
def test_only_the_first_bytes_of_each_row_are_left(kind, lengths, count):
    words = torch.full((len(lengths), count), -1)
    drop_behind(kind(words), kind(torch.tensor(lengths)))
    left = words.view(torch.uint8).reshape(len(lengths), -1)
    for row, length in zip(left.tolist(), lengths, strict=True):
        kept = min(length, count * WORD)
        assert row == [255] * kept + [0] * (count * WORD - kept)


@KINDS
@given(words=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1), bits=st.integers(1, 63))
def test_words_are_folded_as_unsigned_ones(kind, words, bits):
    folded = torch.tensor(words, dtype=torch.int64)
    fold(kind(folded), bits)
    unsigned = [word % (1 << 64) for word in words]
    assert [word % (1 << 64) for word in folded.tolist()] == [w ^ w >> bits for w in unsigned]


def test_a_load_is_as_wide_as_is_needed_and_possible():
    assert [words_for(size) for size in (0, 1, 8, 9, 64, 65, 1000)] == [0, 1, 1, 2, 8, 8, 8]
