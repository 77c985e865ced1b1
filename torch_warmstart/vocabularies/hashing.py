"""Entries' bytes as numbers: hashed to 64 bits, and compared, a word at a time.

Everything is code without a loop over entries and runs on whatever device the entries are on, in
blocks. Hashes are made with numbers drawn anew in each process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from torch_warmstart.computing import blocks
from torch_warmstart.entries import (
    WORD,
    Entries,
    Vector,
    as_vector,
    combined,
    drop_behind,
    fold,
    load_words,
    true_at,
    weighted,
    width_of,
    words_for,
)

BITS = 64  # of a hash

_STRIDE = 1 << 22  # entries hashed or compared between two steps of the progress bar
BLOCK = 1 << 16  # entries worked on by a thread: that long, threads seldom wait for the GIL
_FEWEST = 1 << 10  # the same of long ones
_CACHED = 1 << 17  # words that are loaded for a block
_FACTORS = tuple(f - (1 << BITS) for f in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_LONG = 1024  # bytes; the rest of longer entries is hashed and compared one entry at a time


class _Salt:
    """The numbers that hashes are made with: nobody can choose entries that collide under them.

    Multiplying by odd numbers drawn at random is a universal hash: of whatever entries, few collide
    in the high bits. Other numbers make other hashes, and the same rows.
    """

    def __init__(self, seed: bytes) -> None:
        drawn = hashlib.shake_256(seed).digest(_LONG + 2 * WORD)
        self.key = drawn[:WORD]  # for what is hashed one entry at a time
        self.factors = [  # one for each word of an entry
            int.from_bytes(drawn[at : at + WORD], "little", signed=True) | 1
            for at in range(WORD, len(drawn), WORD)
        ]
        self.step = self.factors.pop()  # for lengths and ids


_SALT = _Salt(os.urandom(16))  # another one in each process


def strides(entries: Entries) -> Iterator[slice]:
    """Entries between two steps of a progress bar."""
    for start in range(0, len(entries), _STRIDE):
        yield slice(start, min(start + _STRIDE, len(entries)))


def blocks_of(entries: Entries, stride: slice) -> list[slice]:
    """Entries of a stride worked on at a time: on a CPU few, so that they stay in the cache."""
    count, size = len(entries), BLOCK
    if entries.is_text and count:
        width = width_of(count, entries.nbytes)
        words = words_for(entries.nbytes // count, width)
        size = max(_FEWEST, min(BLOCK, _CACHED // max(1, words)))
    within = blocks(stride.stop - stride.start, entries.device, size)
    return [slice(stride.start + block.start, stride.start + block.stop) for block in within]


# -- hashing ---------------------------------------------------------------------------------------


def hash_entries(vocabulary: Entries, block: slice) -> Vector:
    """A 64-bit hash of each entry: int64; equal entries have equal ones."""
    if vocabulary.ids is not None:  # they only need to be spread
        hashes = as_vector(vocabulary.ids)[block] * _SALT.step
    else:
        hashes = _hash_block(vocabulary, block)
    _scatter(hashes)
    return hashes


def _scatter(hashes: Vector) -> None:
    """Makes every bit depend on all of them, in place, so that no two become one.

    What counts up has hashes that count up, by whatever step; those of a table would lie in rows,
    and go on to others' places in rows. The steps are those that end Steele, Lea and Flood's
    SplitMix64 (2014).
    """
    fold(hashes, 30)
    hashes *= _FACTORS[0]
    fold(hashes, 27)
    hashes *= _FACTORS[1]
    fold(hashes, 31)


def _hash_block(vocabulary: Entries, block: slice) -> Vector:
    data, (starts, lengths) = as_vector(vocabulary.text), vocabulary.places_of(block)
    shortest, longest = int(lengths.min()), int(lengths.max())
    hashes = lengths * _SALT.step
    width = width_of(len(lengths), int(lengths.sum()))
    for offset in range(0, min(longest, _LONG), width):
        count = words_for(min(longest, _LONG) - offset, width)
        if offset < shortest:  # in all of them
            hashes += _hash_words(data, starts, lengths, offset, count)
            continue
        at = true_at(lengths > offset)
        hashes[at] += _hash_words(data, starts[at], lengths[at], offset, count)
    for at in true_at(lengths > _LONG).tolist():
        start, stop = int(starts[at]) + _LONG, int(starts[at] + lengths[at])
        rest = vocabulary.text[start:stop].cpu().numpy().tobytes()
        digest = hashlib.blake2b(rest, digest_size=WORD, key=_SALT.key).digest()
        hashes[at] ^= int.from_bytes(digest, "little", signed=True)
    return hashes


def _hash_words(data: Vector, starts: Vector, lengths: Vector, offset: int, count: int) -> Vector:
    """The sum of a hash of each of `count` words from an offset on, another one for each word.

    A product's high bits depend on all lower ones, so a word's own high bits are carried down
    before. A word of zeros adds nothing, so that it does not matter how long other entries are.
    """
    words = load_words(data, starts + offset if offset else starts, count)
    words = drop_behind(words, lengths - offset if offset else lengths)
    fold(words, BITS // 2)
    first = offset // WORD
    return weighted(words, _SALT.factors[first : first + count])


# -- comparing -------------------------------------------------------------------------------------


def same_entries(
    left: Entries, left_at: Vector | slice, right: Entries, right_at: Vector
) -> Vector:
    """Whether entries are equal, pair by pair: bool of `len(right_at)`."""
    if left.ids is not None and right.ids is not None:
        return as_vector(left.ids)[left_at] == as_vector(right.ids)[right_at]
    return _same_text(left, left_at, right, right_at)


def _same_text(left: Entries, left_at: Vector | slice, right: Entries, right_at: Vector) -> Vector:
    left_starts, lengths = left.places_of(left_at)
    right_starts, right_lengths = right.places_of(right_at)
    same = lengths == right_lengths
    if not len(right_at):
        return same
    longest = int(lengths.max())
    width = width_of(len(lengths), int(lengths.sum()))
    here, there = as_vector(left.text), as_vector(right.text)
    for offset in range(0, min(longest, _LONG), width):
        at = true_at(same & (lengths > offset)) if offset else slice(None)
        count = words_for(min(longest, _LONG) - offset, width)
        words = load_words(here, left_starts[at] + offset, count)
        words ^= load_words(there, right_starts[at] + offset, count)
        drop_behind(words, lengths[at] - offset)
        same[at] &= combined(words) == 0
    for at in true_at(same & (lengths > _LONG)).tolist():
        ours, theirs = (int(starts[at]) for starts in (left_starts, right_starts))
        length = int(lengths[at])
        same[at] = bool((here[ours : ours + length] == there[theirs : theirs + length]).all())
    return same
