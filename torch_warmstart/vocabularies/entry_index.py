"""The numbers of entries by what they are: a hash table that is filled and asked in blocks.

A cell holds a key: the highest bits of an entry's hash and the entry's number. Keys are placed as
in any table with double hashing, only many at a time: those whose cell is free are written, and
those that find another one there go on to the cell of their next attempt. So no key lies behind a
cell that is free, and an entry that is not there is known by the first one. What is found by its
hash is compared with the entry, so that a collision costs time and never makes a wrong number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from torch_warmstart.computing import blocks, in_threads
from torch_warmstart.display import Advance
from torch_warmstart.entries import (
    WORD,
    Entries,
    Vector,
    as_tensor,
    as_vector,
    counted,
    filled,
    new_words,
    true_at,
)
from torch_warmstart.storage import base_name
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.hashing import (
    BITS,
    BLOCK,
    blocks_of,
    hash_entries,
    same_entries,
    strides,
)
from torch_warmstart.vocabularies.refused_entries import check_once

Result = TypeVar("Result")

MISSING = -1

_CELLS = 2  # of an entry, at least: half of the table is free ...
_CELLS_OF_FEW = 8  # ... or more, where attempts take longer than what is looked at in them
_FEW = 1 << 14  # entries
_STEPS = 256  # a key's own step is at most so many cells: mostly the same page of memory


class EntryIndex:
    """Entries ready to be looked up, on their device: two words an entry beside them."""

    def __init__(self, entries: Entries, advance: Advance = lambda *_: None) -> None:
        """Hashes and places them; `advance` is told of `index_work` bytes."""
        self._entries = entries
        self._cells = _Cells(len(entries), entries.device)
        self._repeat, self._known = _tell_apart(entries, self._fill(advance))

    @property
    def repeat(self) -> tuple[int, int] | None:
        """The places of an entry that is there twice, of several such the one met first."""
        return self._repeat

    def find(self, wanted: Entries) -> torch.Tensor:
        """The number of each entry, -1 for what is not here: int64."""
        found = new_words(len(wanted), wanted.device)
        for stride in strides(wanted):
            self.find_stride(wanted, stride, found[stride])
        return found

    def find_stride(self, wanted: Entries, stride: slice, out: torch.Tensor) -> None:
        """The same of as many as are looked up at a time, into a vector of their length."""
        numbers = as_vector(out)
        if not len(self._entries):
            numbers[:] = MISSING
            return
        self._cells.find_numbers(_hashes_of(wanted, stride), numbers)

        def compare(block: slice) -> None:
            here = numbers[block.start - stride.start : block.stop - stride.start]
            # As if what is missing were the first.
            same = same_entries(wanted, block, self._entries, here.clip(min=0))
            for at in true_at((here != MISSING) & ~same).tolist():
                here[at] = self._known.get(wanted.entry(block.start + at), MISSING)

        in_threads(compare, blocks_of(wanted, stride), wanted.device)

    def _fill(self, advance: Advance) -> torch.Tensor:
        """Places all entries; returns pairs of those whose keys have one hash."""
        entries, cells = self._entries, self._cells
        left, alike = [], []
        for stride in strides(entries):
            placed = cells.place(cells.keys_of(_hashes_of(entries, stride), stride.start), 0)
            left += placed.left
            alike += placed.alike
            part = entries.slice(stride.start, stride.stop)
            advance(f"Hashing {base_name(entries.origin)}", index_work(part))
        for attempt in itertools.count(1):
            keys = cells.joined(left)
            if not len(keys):
                break
            placed = cells.place(keys, attempt)
            left = placed.left
            alike += placed.alike
        return cells.pairs_of(cells.joined(alike))


def _hashes_of(entries: Entries, stride: slice) -> Vector:
    hashes = as_vector(new_words(stride.stop - stride.start, entries.device))

    def work(block: slice) -> None:
        here = slice(block.start - stride.start, block.stop - stride.start)
        hashes[here] = hash_entries(entries, block)

    in_threads(work, blocks_of(entries, stride), entries.device)
    return hashes


def index_work(entries: Entries) -> int:
    """Bytes that an index tells of: all that is hashed and placed."""
    return entries.nbytes + WORD * len(entries)


def index_once(entries: Entries, advance: Advance = lambda *_: None) -> EntryIndex:
    """An index of entries; raises VocabularyError if one is there twice."""
    index = EntryIndex(entries, advance)
    check_once(entries, index.repeat)
    return index


@frozen(eq=False)
class _Placed:
    """What came of placing keys, block by block."""

    left: list[Vector]  # keys that found others in their cells
    alike: list[Vector]  # keys that found one of their own hash, and that one


class _Cells:
    """The table: words of `highest bits of a hash | number + 1`, 0 where a cell is free."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._number_bits = (count + 1).bit_length()
        self._number_mask = (1 << self._number_bits) - 1
        self._hash_mask = ~self._number_mask
        # Of a prime number of cells every step, which is less, leads to each of them.
        cells = (_CELLS_OF_FEW if count <= _FEW else _CELLS) * count
        self._size = _next_prime(max(_STEPS, cells) + 1)
        self._bits = BITS - 1 - self._size.bit_length()  # of a hash: times the size, a word
        self._cells = as_vector(filled(self._size, 0, device))
        self._is_empty = True
        self._device = device

    def keys_of(self, hashes: Vector, first: int) -> Vector:
        """The keys of entries that are numbered from `first` on, in place of their hashes."""

        def work(block: slice) -> None:
            start, stop = (first + 1 + at for at in (block.start, block.stop))
            hashes[block] &= self._hash_mask
            hashes[block] |= counted(start, stop, hashes)

        self._in_blocks(work, len(hashes))
        return hashes

    def place(self, keys: Vector, attempt: int) -> _Placed:
        """Writes keys into their cells, where these are free.

        Of keys with one cell any may come to lie there, whatever threads do meanwhile: each is
        written whole, and looked at again when all have been.
        """

        def write(block: slice) -> None:
            here = keys[block]
            at = self._places(here, attempt)
            if not was_empty:
                free = true_at(self._cells[at] == 0)
                at, here = at[free], here[free]
            self._cells[at] = here

        def look(block: slice) -> tuple[Vector, Vector]:
            here = keys[block]
            there = self._cells[self._places(here, attempt)]
            lost = true_at(there != here)
            here, there = here[lost], there[lost]
            is_alike = (here ^ there) & self._hash_mask == 0
            if not bool(is_alike.any()):
                return here, here[:0]
            return here[~is_alike], self.joined([here[is_alike], there[is_alike]])

        was_empty, self._is_empty = self._is_empty, False
        self._in_blocks(write, len(keys))
        looked = self._in_blocks(look, len(keys))
        return _Placed([left for left, _ in looked], [alike for _, alike in looked])

    def find_numbers(self, hashes: Vector, numbers: Vector) -> None:
        """Writes for each hash the number of an entry that has it as far as keys tell, or -1."""

        def first(block: slice) -> Vector:
            sought, found = hashes[block], numbers[block]
            keys = self._cells[self._places(sought, 0)]
            found[:] = keys
            found &= self._number_mask
            found -= 1
            keys ^= sought
            keys &= self._hash_mask
            others = true_at(keys != 0)
            is_taken = found[others] != MISSING
            found[others] = MISSING
            return others[is_taken] + block.start

        left = self.joined(self._in_blocks(first, len(hashes)))
        for attempt in itertools.count(1):
            if not len(left):
                break
            left = self._further_numbers(hashes, numbers, left, attempt)

    def _further_numbers(
        self, hashes: Vector, numbers: Vector, left: Vector, attempt: int
    ) -> Vector:
        """Writes the numbers of those that are found at this attempt; returns what goes on."""

        def work(block: slice) -> Vector:
            at = left[block]
            sought = hashes[at]
            keys = self._cells[self._places(sought, attempt)]
            differ = (keys ^ sought) & self._hash_mask
            same = true_at(differ == 0)
            numbers[at[same]] = (keys[same] & self._number_mask) - 1
            return at[true_at((differ != 0) & (keys != 0))]

        return self.joined(self._in_blocks(work, len(left)))

    def pairs_of(self, keys: Vector) -> torch.Tensor:
        """The numbers of entries of one hash, neighbours in their order: `[n, 2]`."""
        if not len(keys):  # as nearly always
            return as_tensor(keys.reshape(0, 2))
        ordered = torch.unique(as_tensor(keys))
        before, here = ordered[:-1], ordered[1:]
        is_alike = (before ^ here) & self._hash_mask == 0
        return (torch.stack([before[is_alike], here[is_alike]], 1) & self._number_mask) - 1

    def joined(self, vectors: Sequence[Vector]) -> Vector:
        """One vector of several."""
        if isinstance(self._cells, np.ndarray):
            return np.concatenate([self._cells[:0], *vectors])
        return torch.cat([self._cells[:0], *vectors])

    def _in_blocks(self, work: Callable[[slice], Result], count: int) -> list[Result]:
        return in_threads(work, blocks(count, self._device, BLOCK), self._device)

    def _places(self, keys: Vector, attempt: int) -> Vector:
        """The cell of each key, or hash, at an attempt."""
        at = keys >> (BITS - self._bits)
        at &= (1 << self._bits) - 1
        at *= self._size
        at >>= self._bits
        if not attempt:
            return at
        steps = keys >> self._number_bits
        steps &= _STEPS - 1
        steps += 1
        steps *= attempt
        at += steps
        if int(at.max()) >= self._size:
            at %= self._size
        return at


def _next_prime(least: int) -> int:
    return next(odd for odd in itertools.count(least | 1, 2) if _is_prime(odd))


def _is_prime(odd: int) -> bool:
    return all(odd % divisor for divisor in range(3, int(odd**0.5) + 1, 2))


def _tell_apart(
    entries: Entries, alike: torch.Tensor
) -> tuple[tuple[int, int] | None, dict[bytes | int, int]]:
    """Of entries that share a hash: two places of an equal one, and all of them by value."""
    if not len(alike):
        return None, {}
    one, other = (as_vector(alike[:, column].contiguous()) for column in (0, 1))
    same = alike[as_tensor(same_entries(entries, one, entries, other))]
    known: dict[bytes | int, int] = {}
    numbers = torch.unique(alike)
    if len(same):
        first, second = same[same[:, 1].argmin()].tolist()
        if len(same) == len(alike):
            return (first, second), known
        numbers = numbers[numbers <= second]  # another one may be met before it
    for at in numbers.tolist():
        first = known.setdefault(entries.entry(at), at)
        if first != at:
            return (first, at), {}
    return None, known
