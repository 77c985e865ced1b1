"""Bytes at any place of a buffer, loaded eight at a time: how text is hashed and compared.

And vectors of words. What works on blocks of them takes numpy's arrays on a CPU and tensors
elsewhere: both have the operators that are used, and numpy computes in the thread that calls it.
torch splits what is longer than its grain size among threads that wait for each other.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

WORD = 8  # bytes
WIDEST = 8 * WORD  # bytes loaded from one place at a time: a cache line
_LONGEST = 8 * WIDEST  # the same, of long entries
_TOGETHER = 1 << 22  # bytes of a load of many long entries, so that they stay in the cache

Vector = Any  # an array of numpy's or a tensor: of int64, uint8 or bool

# A word's first 0 to 8 bytes.
_FIRST_BYTES = np.array([(1 << 8 * kept) - 1 for kept in range(WORD)] + [-1])


def as_vector(tensor: torch.Tensor) -> Vector:
    """The same memory: numpy's on a CPU."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def as_tensor(vector: Vector) -> torch.Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(vector) if isinstance(vector, np.ndarray) else vector


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
    as_vector(made)[:] = value
    return made


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Where a vector of bool is true: int64."""
    return as_tensor(true_at(as_vector(mask)))


def true_at(mask: Vector) -> Vector:
    """The same of either kind of vector."""
    if isinstance(mask, np.ndarray):
        return np.flatnonzero(mask)  # in a third of torch's time
    return mask.nonzero().flatten()


def repeated(vector: Vector, counts: Vector) -> Vector:
    """Each element as many times as its count says."""
    if isinstance(vector, np.ndarray):
        return np.repeat(vector, counts)
    return vector.repeat_interleave(counts)


def counted(start: int, stop: int, beside: Vector) -> Vector:
    """The numbers from `start` to `stop`, as a vector of the kind of another one: int64."""
    if isinstance(beside, np.ndarray):
        return np.arange(start, stop)
    return torch.arange(start, stop, device=beside.device)


def unmarked(count: int, beside: Vector) -> Vector:
    """`count` times False, as a vector of the kind of another one: bool."""
    if isinstance(beside, np.ndarray):
        return np.zeros(count, dtype=np.bool_)
    return torch.zeros(count, dtype=torch.bool, device=beside.device)


def load_words(data: Vector, places: Vector, count: int) -> Vector:
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
    at = true_at(places >= start)
    at_end = _load(_with_zeros(data[start:], size), places[at] - start, size)
    if len(at) == len(places):
        return at_end
    words = _load(data, places.clip(max=start - 1), size)  # those at the end as any other
    words[at] = at_end
    return words


def _with_zeros(data: Vector, count: int) -> Vector:
    if isinstance(data, np.ndarray):
        return np.concatenate([data, np.zeros(count, dtype=data.dtype)])
    return torch.cat([data, data.new_zeros(count)])


def _load(data: Vector, places: Vector, size: int) -> Vector:
    if not isinstance(data, np.ndarray):
        if not len(places):
            return places.new_empty(0, size // WORD)
        return data.unfold(0, size, 1).index_select(0, places).view(torch.int64)
    if not data.flags.c_contiguous:
        data = np.ascontiguousarray(data)
    # Records that overlap, of which numpy copies each by itself.
    record = np.dtype((np.void, size))
    records = np.ndarray(max(0, len(data) - size + 1), record, buffer=data, strides=(1,))
    return records[places].view(np.int64).reshape(len(places), size // WORD)


def drop_behind(words: Vector, lengths: Vector) -> Vector:
    """Makes zeros of all but the first `lengths` bytes of each row of words, in place."""
    if not len(words):
        return words
    whole = max(0, int(lengths.min())) // WORD  # words that every row has
    masks = _FIRST_BYTES if isinstance(words, np.ndarray) else _masks_on(words.device)
    for at in range(whole, words.shape[1]):
        kept = lengths - at * WORD
        words[:, at] &= masks[kept.clip(0, WORD)]
    return words


@functools.cache
def _masks_on(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(_FIRST_BYTES).to(device)


def fold(words: Vector, bits: int) -> None:
    """`words ^= words >> bits` without signs, in place, which can be undone: no two become one."""
    if isinstance(words, np.ndarray):
        unsigned = words.view(np.uint64)
        unsigned ^= unsigned >> np.uint64(bits)
    else:
        words ^= (words >> bits) & ((1 << 8 * WORD - bits) - 1)


def combined(words: Vector) -> Vector:
    """All words of a row by "or": int64 of `[n]`."""
    if isinstance(words, np.ndarray) and words.shape[1] > WIDEST // WORD:
        return np.bitwise_or.reduce(words, axis=1)
    return functools.reduce(operator.or_, _columns(words))


def weighted(words: Vector, factors: Sequence[int]) -> Vector:
    """The sum of a row's words, each multiplied by its factor, modulo 2**64: int64 of `[n]`."""
    if isinstance(words, np.ndarray) and words.shape[1] > WIDEST // WORD:  # as they lie
        numbers = np.array(factors, dtype=np.int64).view(np.uint64)
        return np.einsum("ij,j->i", words.view(np.uint64), numbers).view(np.int64)
    products = (word * factor for word, factor in zip(_columns(words), factors, strict=True))
    return functools.reduce(operator.iadd, products)


def _columns(words: Vector) -> list[Vector]:
    return [words[:, at] for at in range(words.shape[1])]


def width_of(count: int, size: int) -> int:
    """Bytes to load from each of `count` entries at a time, that have `size` bytes altogether."""
    mean = -(-size // max(1, count))
    most = min(_LONGEST, _TOGETHER // max(1, count) // WORD * WORD)
    return max(WIDEST, min(most, mean + -mean % WIDEST))


def words_for(size: int, width: int = WIDEST) -> int:
    """How many words hold so many bytes, at most a load of `width`."""
    return -(-min(size, width) // WORD)
