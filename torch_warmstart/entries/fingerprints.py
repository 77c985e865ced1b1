"""TensorFlow's hash of an entry, which decides the OOV bucket that it uses.

FarmHash's `Fingerprint64`, the hash of `tf.strings.to_hash_bucket_fast` and so of the OOV buckets
of lookup tables and of Keras' lookup layers: the same for all time, on every machine. Integer
entries are hashed by their digits, as tables hash them. Written for many entries at once: those of
one length class go through the same arithmetic, and only entries beyond 64 bytes take a step each
64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch_warmstart.entries.entries import Entries

if TYPE_CHECKING:
    import numpy.typing as npt

# How a row for what is not listed is chosen, as a vocabulary says it: by this hash, or by the id.
FARMHASH, BY_REMAINDER = "farmhash64", "floormod"

Words = np.ndarray[tuple[Any, ...], np.dtype[np.uint64]]

_K0, _K1, _K2 = (np.uint64(k) for k in (0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F))
_BLOCK = 64  # bytes of a step through a long entry
_AT_ONCE = 1 << 16  # entries


def hash_buckets(entries: Entries, num_buckets: int) -> torch.Tensor:
    """For each entry its OOV bucket, of `num_buckets`: int64 on the CPU."""
    buckets = fingerprints(entries) % np.uint64(num_buckets)
    return torch.from_numpy(buckets.astype(np.int64))


def fingerprints(entries: Entries) -> Words:
    """For each entry its FarmHash `Fingerprint64`."""
    out = np.empty(len(entries), dtype=np.uint64)
    for first in range(0, len(entries), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        out[part] = _of([v if isinstance(v, bytes) else b"%d" % v for v in entries.values(part)])
    return out


def _of(values: list[bytes]) -> Words:
    lengths = np.array([*map(len, values)], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    data = np.frombuffer(b"".join(values) + bytes(8), dtype=np.uint8)
    out = np.empty(len(values), dtype=np.uint64)
    for lowest, highest, hashed in _CLASSES:
        at = np.flatnonzero((lengths >= lowest) & (lengths <= highest))
        if len(at):
            with np.errstate(over="ignore"):
                out[at] = hashed(_Text(data, starts[at], lengths[at]))
    return out


class _Text:
    """Entries, and words at places in each."""

    def __init__(
        self,
        data: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> None:
        self._data, self._starts, self.lengths = data, starts, lengths

    @property
    def size(self) -> Words:
        return self.lengths.astype(np.uint64)

    def word(self, offset: int | npt.NDArray[np.int64], count: int = 8) -> Words:
        """The little-endian word of `count` bytes at an offset from each start."""
        places = (self._starts + offset)[:, None] + np.arange(count)
        raw = np.zeros((len(places), 8), dtype=np.uint8)
        raw[:, :count] = self._data[places]
        return raw.view("<u8")[:, 0].astype(np.uint64)

    def from_end(self, offset: int, count: int = 8) -> Words:
        """The same, `offset` bytes before the end."""
        return self.word(self.lengths - offset, count)

    def only(self, at: npt.NDArray[np.int64], behind: int = 0) -> _Text:
        """Some of the entries, each from `behind` bytes on."""
        return _Text(self._data, self._starts[at] + behind, self.lengths[at])


def _n(value: int) -> np.uint64:
    word: np.uint64 = np.uint64(value)
    return word


def _rotate(word: Words, by: int) -> Words:
    return (word >> _n(by)) | (word << _n(64 - by))


def _mix(word: Words) -> Words:
    return word ^ (word >> _n(47))


def _join(low: Words, high: Words, factor: Words | np.uint64) -> Words:
    first = _mix((low ^ high) * factor)
    return _mix((high ^ first) * factor) * factor


def _empty(text: _Text) -> Words:
    words: Words = np.full(len(text.lengths), _K2, dtype=np.uint64)
    return words


def _to_3(text: _Text) -> Words:
    first, last = text.word(0, 1), text.from_end(1, 1)
    middle = text.word(text.lengths >> 1, 1)
    low = first + (middle << _n(8))
    high = text.size + (last << _n(2))
    words: Words = _mix(low * _K2 ^ high * _K0) * _K2
    return words


def _to_7(text: _Text) -> Words:
    factor = _K2 + text.size * _n(2)
    return _join(text.size + (text.word(0, 4) << _n(3)), text.from_end(4, 4), factor)


def _to_16(text: _Text) -> Words:
    factor = _K2 + text.size * _n(2)
    a, b = text.word(0) + _K2, text.from_end(8)
    c = _rotate(b, 37) * factor + a
    d = (_rotate(a, 25) + b) * factor
    return _join(c, d, factor)


def _to_32(text: _Text) -> Words:
    factor = _K2 + text.size * _n(2)
    a, b = text.word(0) * _K1, text.word(8)
    c, d = text.from_end(8) * factor, text.from_end(16) * _K2
    low = _rotate(a + b, 43) + _rotate(c, 30) + d
    return _join(low, a + _rotate(b + _K2, 18) + c, factor)


def _to_64(text: _Text) -> Words:
    factor = _K2 + text.size * _n(2)
    a, b = text.word(0) * _K2, text.word(8)
    c, d = text.from_end(8) * factor, text.from_end(16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _join(y, a + _rotate(b + _K2, 18) + c, factor)
    e, f = text.word(16) * factor, text.word(24)
    g = (y + text.from_end(32)) * factor
    h = (z + text.from_end(24)) * factor
    return _join(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, factor)


def _weak(text: _Text, offset: int, a: Words, b: Words) -> tuple[Words, Words]:
    """32 bytes from an offset on, with two seeds."""
    w, x, y, z = (text.word(offset + at) for at in (0, 8, 16, 24))
    a = a + w
    b = _rotate(b + a + z, 21)
    c = a
    a = a + x + y
    return a + z, b + _rotate(a, 44) + c


def _longer(text: _Text) -> Words:
    """Beyond 64 bytes: a state of 56 bytes goes through the whole blocks, then the last 64."""
    count = len(text.lengths)
    y = np.full(count, _n(81) * _K1 + _n(113))
    z = _mix(y * _K2 + _n(113)) * _K2
    x = np.full(count, _n(81) * _K2) + text.word(0)
    state = [x, y, z, *(np.zeros(count, dtype=np.uint64) for _ in range(4))]
    steps = (text.lengths - 1) // _BLOCK
    for step in range(int(steps.max())):
        at = np.flatnonzero(steps > step)
        part = _round([words[at] for words in state], text.only(at, step * _BLOCK))
        for words, new in zip(state, part, strict=True):
            words[at] = new
    return _last(state, text)


def _round(state: list[Words], text: _Text) -> list[Words]:
    x, y, z, v0, v1, w0, w1 = state
    x = _rotate(x + y + v0 + text.word(8), 37) * _K1
    y = _rotate(y + v1 + text.word(48), 42) * _K1
    x = x ^ w1
    y = y + v0 + text.word(40)
    z = _rotate(z + w0, 33) * _K1
    v0, v1 = _weak(text, 0, v1 * _K1, x + w0)
    w0, w1 = _weak(text, 32, z + w1, y + text.word(16))
    return [z, y, x, v0, v1, w0, w1]


def _last(state: list[Words], text: _Text) -> Words:
    x, y, z, v0, v1, w0, w1 = state
    factor = _K1 + ((z & _n(0xFF)) << _n(1))
    tail = _Text(text._data, text._starts + text.lengths - _BLOCK, text.lengths)
    w0 = w0 + ((text.size - _n(1)) & _n(63))
    v0 = v0 + w0
    w0 = w0 + v0
    x = _rotate(x + y + v0 + tail.word(8), 37) * factor
    y = _rotate(y + v1 + tail.word(48), 42) * factor
    x = x ^ (w1 * _n(9))
    y = y + v0 * _n(9) + tail.word(40)
    z = _rotate(z + w0, 33) * factor
    v0, v1 = _weak(tail, 0, v1 * factor, x + w0)
    w0, w1 = _weak(tail, 32, z + w1, y + tail.word(16))
    x, z = z, x
    low = _join(v0, w0, factor) + _mix(y) * _K0 + z
    return _join(low, _join(v1, w1, factor) + x, factor)


_Hash = Callable[[_Text], Words]
_CLASSES: tuple[tuple[int, int, _Hash], ...] = (
    (0, 0, _empty),
    (1, 3, _to_3),
    (4, 7, _to_7),
    (8, 16, _to_16),
    (17, 32, _to_32),
    (33, 64, _to_64),
    (65, 1 << 62, _longer),
)
