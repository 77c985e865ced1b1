"""Bytes at any place of a buffer, loaded eight at a time: how text is hashed and compared."""

from __future__ import annotations

import numpy as np
import torch

WORD = 8  # bytes
WIDEST = 8 * WORD  # bytes loaded from one place at a time: a cache line

_KEEP_THEN_DROP = torch.tensor([0xFF] * WIDEST + [0] * WIDEST, dtype=torch.uint8)


def load_words(data: torch.Tensor, positions: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` little-endian words at each position: int64 of `[len(positions), count]`.

    Args:
        data: The buffer, uint8.
        positions: int64 of any alignment, none beyond the end; bytes behind the end are zeros.
        count: At most `WIDEST // WORD`.
    """
    size = count * WORD
    last = len(data) - size  # the last place from which so much can be loaded
    if not len(positions) or int(positions.max()) <= last:
        return _load(data, positions, size)
    at_end = positions > last
    words = positions.new_empty(len(positions), count)
    words[~at_end] = _load(data, positions[~at_end], size)
    start = max(last + 1, 0)
    tail = torch.cat([data[start:], data.new_zeros(size)])
    words[at_end] = _load(tail, positions[at_end] - start, size)
    return words


def drop_behind(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Makes zeros of all but the first `lengths` bytes of each row of words, in place."""
    if not len(words):
        return words
    whole = min(int(lengths.min()) // WORD, words.shape[1])  # words that every row has
    if whole == words.shape[1]:
        return words
    cut = words[:, whole:]
    positions = WIDEST - (lengths - whole * WORD).clamp_(max=WIDEST)
    cut &= load_words(_KEEP_THEN_DROP.to(words.device), positions, cut.shape[1])
    return words


def words_for(size: int) -> int:
    """How many words hold so many bytes, at most the widest load."""
    return -(-min(size, WIDEST) // WORD)


def _load(data: torch.Tensor, positions: torch.Tensor, size: int) -> torch.Tensor:
    if not len(positions):
        return positions.new_empty(0, size // WORD)
    if data.device.type != "cpu":
        return data.unfold(0, size, 1)[positions].view(torch.int64)
    # numpy copies an element of any size from any place, in a fraction of the time of single bytes.
    places = np.ndarray((len(data) - size + 1,), f"V{size}", data.numpy(), strides=(1,))
    return torch.from_numpy(places[positions.numpy()].view("<i8").reshape(-1, size // WORD))
