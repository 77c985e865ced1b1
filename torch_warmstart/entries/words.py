"""Bytes at any place of a buffer, loaded eight at a time: how text is hashed and compared.

And vectors of words: where they are kept, and where they are what is looked for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

WORD = 8  # bytes
WIDEST = 8 * WORD  # bytes loaded from one place at a time: a cache line
_LONGEST = 8 * WIDEST  # the same, of long entries
_TOGETHER = 1 << 20  # bytes of a load of many long entries, so that they stay in the cache

# A word's first 0 to 8 bytes.
_FIRST_BYTES = torch.tensor([(1 << 8 * kept) - 1 for kept in range(WORD)] + [-1])


def new_words(count: int, device: torch.device) -> torch.Tensor:
    """An uninitialised vector of words: int64.

    On a CPU from numpy, which asks Linux for huge pages: with them, to look something up at random
    takes half the time.
    """
    if device.type != "cpu":
        return torch.empty(count, dtype=torch.int64, device=device)
    return torch.from_numpy(np.empty(count, dtype=np.int64))


def filled(count: int, value: int, device: torch.device) -> torch.Tensor:
    """`count` times one number: int64."""
    made = new_words(count, device)
    if device.type != "cpu":
        return made.fill_(value)
    made.numpy().fill(value)
    return made


def load_words(data: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` little-endian words at each position: int64 of `[len(places), count]`.

    Args:
        data: The buffer, uint8.
        places: int64 of any alignment, none beyond the end; bytes behind the end are zeros.
        count: How many.
    """
    size = count * WORD
    last = len(data) - size  # the last place from which so much can be loaded
    if not len(places) or int(places.max()) <= last:
        return _load(data, places, size)
    start = max(last + 1, 0)
    tail = torch.cat([data[start:], data.new_zeros(size)])
    at = positions(places >= start)
    at_end = _load(tail, places.index_select(0, at) - start, size)
    if len(at) == len(places):
        return at_end
    words = _load(data, places.clamp(max=start - 1), size)  # those at the end as any other
    if words.device.type == "cpu":
        words.numpy()[at.numpy()] = at_end.numpy()
    else:
        words[at] = at_end
    return words


def drop_behind(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Makes zeros of all but the first `lengths` bytes of each row of words, in place."""
    if not len(words):
        return words
    whole = max(0, int(lengths.min())) // WORD  # words that every row has
    masks = _FIRST_BYTES.to(words.device)
    for at in range(whole, words.shape[1]):
        kept = (lengths - at * WORD).clamp_(0, WORD)
        words[:, at] &= masks.index_select(0, kept)
    return words


def xor_into(words: torch.Tensor, others: torch.Tensor) -> None:
    """`words ^= others`; on a CPU in this thread, however many words there are."""
    if words.device.type == "cpu":
        np.bitwise_xor(words.numpy(), others.numpy(), out=words.numpy())
    else:
        words ^= others


def shifted(words: torch.Tensor, bits: int) -> torch.Tensor:
    """`words >> bits`, arithmetically; on a CPU in this thread."""
    if words.device.type == "cpu":
        return torch.from_numpy(words.numpy() >> bits)
    return words >> bits


def combined(words: torch.Tensor) -> torch.Tensor:
    """All words of a row by "or": int64 of `[n]`."""
    if words.device.type == "cpu" and words.shape[1] > WIDEST // WORD:
        return torch.from_numpy(np.bitwise_or.reduce(words.numpy(), axis=1))
    return functools.reduce(torch.bitwise_or, words.unbind(1))


def weighted(words: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """The sum of a row's words, each multiplied by its factor, modulo 2**64: int64 of `[n]`."""
    if words.device.type == "cpu":  # row by row, as they lie: in a third of torch's time
        numbers = np.array(factors, dtype=np.int64).view(np.uint64)
        summed = np.einsum("ij,j->i", words.numpy().view(np.uint64), numbers)
        return torch.from_numpy(summed.view(np.int64))
    total = torch.zeros_like(words[:, 0])
    for word, factor in zip(words.unbind(1), factors, strict=True):
        total += word * factor
    return total


def width_of(count: int, size: int) -> int:
    """Bytes to load from each of `count` entries at a time, that have `size` bytes altogether."""
    mean = -(-size // max(1, count))
    most = min(_LONGEST, _TOGETHER // max(1, count) // WORD * WORD)
    return max(WIDEST, min(most, mean + -mean % WIDEST))


def words_for(size: int, width: int = WIDEST) -> int:
    """How many words hold so many bytes, at most a load of `width`."""
    return -(-min(size, width) // WORD)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Where a vector of bool is true: int64."""
    if mask.device.type != "cpu":
        return mask.nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # in a third of torch's time


def _load(data: torch.Tensor, positions: torch.Tensor, size: int) -> torch.Tensor:
    if not len(positions):
        return positions.new_empty(0, size // WORD)
    if data.device.type != "cpu" or not data.is_contiguous():
        return data.unfold(0, size, 1).index_select(0, positions).view(torch.int64)
    # Records that overlap: torch would split so wide a load among threads that wait for each other.
    raw, record = data.numpy(), np.dtype((np.void, size))
    records = np.ndarray(len(raw) - size + 1, record, buffer=raw, strides=(1,))
    return torch.from_numpy(records[positions.numpy()].view(np.int64).reshape(-1, size // WORD))
