"""The hash join: for every entry of one vocabulary, its place in another.

The entries' bytes are hashed to 64 bits a word at a time. What is left of a hash beside an entry's
number is sorted together with that number as one integer, both vocabularies at once, so equal
entries become neighbours: old before new, in order. Neighbours are then verified by comparing the
bytes, so a collision can cost time but never a wrong row. Everything is code without a loop over
entries and runs on whatever device the vocabularies are on: hashing and comparing in blocks,
matching in parts of the range of hashes, which bounds what is made on the way.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.parallel import blocks, in_blocks, in_threads
from torch_warmstart.progress import Advance
from torch_warmstart.storage import base_name
from torch_warmstart.vocab import Vocabulary
from torch_warmstart.words import (
    WIDEST,
    WORD,
    drop_behind,
    load_words,
    new_words,
    positions,
    words_for,
)

MISSING = -1

_STRIDE = 1 << 22  # entries hashed or compared between two steps of the progress bar
_PART = 1 << 24  # keys matched at a time, by each thread
_BITS = 64  # of a hash
_LONG = 1024  # bytes; the rest of longer entries is hashed and compared one entry at a time

# Odd 64-bit constants of Knuth's multiplicative hashing and of splitmix64, as signed integers; and
# powers of the second, one for each word of an entry.
_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX = -4658895280553007687  # 0xBF58476D1CE4E5B9
_FACTORS = [
    int.from_bytes(pow(_MIX, 1 + at, 1 << _BITS).to_bytes(WORD, "little"), "little", signed=True)
    for at in range(_LONG // WORD)
]


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """What a join found.

    `rows` has for each new entry its index in the old vocabulary, or -1: int64. If the old one has
    an entry twice, `repeat` has the two places, of several such the one met first, and `rows` means
    nothing. Unless `may_share`, no two new entries have the same row.
    """

    rows: torch.Tensor
    may_share: bool
    repeat: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Packing:
    """How a hash, a side and an entry's number share 64 bits: `hash | is new | number`.

    The highest bits of a hash say which part it belongs to, and are not kept.
    """

    number_bits: int
    part_bits: int

    @property
    def side(self) -> int:
        """The bit that is set in what is new."""
        return 1 << self.number_bits

    @property
    def hash_mask(self) -> int:
        return -2 << self.number_bits

    @property
    def number_mask(self) -> int:
        return self.side - 1

    @property
    def parts(self) -> range:
        """The highest bits of hashes, which are signed."""
        half = 1 << self.part_bits >> 1
        return range(-half, half)


def join(new: Vocabulary, old: Vocabulary, advance: Advance = lambda *_: None) -> Joined:
    """Looks up every entry of `new` in `old`: both text or both ids, on one device.

    Only `old` must not repeat itself. `advance` is told of `work_of` bytes of work altogether.
    """
    hashes = [hash_entries(vocabulary, advance) for vocabulary in (old, new)]
    packing = _choose_packing(len(old), len(new), new.device)
    rows = new_words(len(new), new.device).fill_(MISSING)

    def match(part: int) -> tuple[torch.Tensor, bool]:
        keys = _sorted(_pack(hashes, part, packing))
        matched = _match(keys, packing, rows)
        advance(f"Looking up {base_name(new.origin)}", keys.nbytes)
        return matched

    matched = in_threads(match, packing.parts, new.device)
    alike = torch.cat([pairs for pairs, _ in matched])
    repeat, known = _tell_apart(old, alike)
    if repeat is None:
        for at in _different(new, rows, old, advance).tolist():
            rows[at] = known.get(new.entry(at), MISSING)
    return Joined(rows, any(shares for _, shares in matched), repeat)


def work_of(new: Vocabulary, old: Vocabulary) -> int:
    """Bytes that a join tells of: all that is hashed, sorted and compared."""
    return old.nbytes + 2 * new.nbytes + WORD * (len(old) + len(new))


def _steps(vocabulary: Vocabulary) -> Iterator[tuple[slice, Vocabulary]]:
    for start in range(0, len(vocabulary), _STRIDE):
        step = slice(start, min(start + _STRIDE, len(vocabulary)))
        yield step, vocabulary.slice(step.start, step.stop)


# -- matching --------------------------------------------------------------------------------------


def _choose_packing(num_old: int, num_new: int, device: torch.device) -> _Packing:
    """At least a part for each thread; a power of two of them, at least two."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    parts = max(threads, -(-(num_old + num_new) // _PART))
    return _Packing(max(num_old, num_new).bit_length(), max(1, (parts - 1).bit_length()))


def _pack(hashes: Sequence[torch.Tensor], part: int, packing: _Packing) -> torch.Tensor:
    """The keys of one part, of the old and the new vocabulary's hashes."""
    pieces = [hashes[0].new_empty(0)]
    for side, hashed in zip((0, packing.side), hashes, strict=True):
        for block in blocks(len(hashed), hashed.device):
            at = positions(hashed[block] >> (_BITS - packing.part_bits) == part)
            keys = hashed[block].index_select(0, at).bitwise_left_shift_(packing.part_bits)
            at += block.start
            pieces.append(keys.bitwise_and_(packing.hash_mask).bitwise_or_(at.bitwise_or_(side)))
    return torch.cat(pieces, out=new_words(sum(map(len, pieces)), pieces[0].device))


def _sorted(keys: torch.Tensor) -> torch.Tensor:
    if keys.device.type != "cpu":
        return torch.sort(keys).values
    keys.numpy().sort()  # by vector instructions, in a tenth of the time of torch's
    return keys


def _match(keys: torch.Tensor, packing: _Packing, rows: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Writes into `rows` for each new entry an old one of its hash, if there is one.

    Returns pairs of old entries of one hash, ascending, `[n, 2]`, and whether several new entries
    have the hash of an old one. Among several old ones of its hash, a new entry gets any.
    """
    alike, shares = [keys.new_empty(0, 2)], False
    for block in blocks(len(keys) - 1, keys.device):
        before, here = keys[block], keys[block.start + 1 : block.stop + 1]
        at = positions((before ^ here) & packing.hash_mask == 0)
        before, here = before.index_select(0, at), here.index_select(0, at)
        is_new = here & packing.side != 0
        if not bool(is_new.all()):
            pair = torch.stack([before[~is_new], here[~is_new]], dim=1) & packing.number_mask
            alike.append(pair)
            before, here = before[is_new], here[is_new]
        behind_new = positions(before & packing.side != 0)
        if len(behind_new):  # repeats: what comes first of their hash is old, or none is
            first = torch.searchsorted(keys, here[behind_new] & packing.hash_mask)
            before[behind_new] = keys[first]
            has_old = before & packing.side == 0
            shares = shares or bool(has_old[behind_new].any())
            before, here = before[has_old], here[has_old]
        rows.index_copy_(0, here & packing.number_mask, before & packing.number_mask)
    return torch.cat(alike), shares


def _tell_apart(
    old: Vocabulary, alike: torch.Tensor
) -> tuple[tuple[int, int] | None, dict[bytes | int, int]]:
    """Of old entries that share a hash: two places of an equal one, and all of them by value."""
    same = alike[_same(old, alike[:, 0], old, alike[:, 1])]
    if len(same):
        first, second = same[same[:, 1].argmin()].tolist()
        return (first, second), {}
    known: dict[bytes | int, int] = {}
    for at in torch.unique(alike).tolist():
        first = known.setdefault(old.entry(at), at)
        if first != at:  # with another entry of their hash between them
            return (first, at), {}
    return None, known


# -- hashing ---------------------------------------------------------------------------------------


def hash_entries(vocabulary: Vocabulary, advance: Advance = lambda *_: None) -> torch.Tensor:
    """A 64-bit hash of each entry: int64, best in the high bits; equal entries have equal ones."""
    hashes = new_words(len(vocabulary), vocabulary.device)
    for step, part in _steps(vocabulary):
        _hash_into(hashes[step], part)
        advance(f"Hashing {base_name(vocabulary.origin)}", part.nbytes)
    return hashes


def _hash_into(hashes: torch.Tensor, vocabulary: Vocabulary) -> None:
    def work(block: slice) -> None:
        if vocabulary.ids is None:
            hashes[block] = _hash_block(vocabulary, block)
        else:  # they only need to be spread
            torch.mul(vocabulary.ids[block], _STEP, out=hashes[block])

    in_blocks(work, len(vocabulary), vocabulary.device)


def _hash_block(vocabulary: Vocabulary, block: slice) -> torch.Tensor:
    data, (starts, lengths) = vocabulary.text, vocabulary.places(block)
    longest = int(lengths.max())
    hashes = lengths * _STEP
    for offset in range(0, min(longest, _LONG), WIDEST):
        if not offset:
            hashes += _hash_words(data, starts, lengths, 0, longest)
            continue
        at = positions(lengths > offset)
        hashes[at] += _hash_words(data, starts[at], lengths[at], offset, longest)
    for at in positions(lengths > _LONG).tolist():
        rest = data[int(starts[at]) + _LONG : int(starts[at] + lengths[at])].cpu().numpy().tobytes()
        digest = hashlib.blake2b(rest, digest_size=WORD).digest()
        hashes[at] ^= int.from_bytes(digest, "little", signed=True)
    return hashes


def _hash_words(
    data: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, offset: int, longest: int
) -> torch.Tensor:
    """The sum of a hash of each word from an offset on, another one for each word.

    A product's high bits depend on all lower ones, so a word's own high bits are carried down
    before. A word of zeros adds nothing, so that it does not matter how long other entries are.
    """
    words = load_words(data, starts + offset, words_for(longest - offset))
    words = drop_behind(words, lengths - offset)
    words ^= words >> (_BITS // 2)  # repeats the sign, which can be undone: no two become one
    total = torch.zeros_like(lengths)
    for number, word in enumerate(words.unbind(1), offset // WORD):
        total += word * _FACTORS[number]
    return total


# -- comparing -------------------------------------------------------------------------------------


def _different(
    new: Vocabulary, rows: torch.Tensor, old: Vocabulary, advance: Advance
) -> torch.Tensor:
    """The new entries, by index, that are not what was found for them in `old`."""
    different = []
    for step, part in _steps(new):
        different.append(_different_of(part, rows[step], old) + step.start)
        advance(f"Comparing {base_name(new.origin)}", part.nbytes)
    return torch.cat([rows.new_empty(0), *different])


def _different_of(new: Vocabulary, rows: torch.Tensor, old: Vocabulary) -> torch.Tensor:
    def work(block: slice) -> torch.Tensor:
        found = rows[block]
        same = _same(new, block, old, found.clamp(min=0))  # as if what is missing were the first
        wrong: torch.Tensor = positions((found >= 0) & ~same) + block.start
        return wrong

    return torch.cat(in_blocks(work, len(rows), rows.device))


def _same(
    left: Vocabulary, left_at: torch.Tensor | slice, right: Vocabulary, right_at: torch.Tensor
) -> torch.Tensor:
    """Whether entries are equal, pair by pair: bool of `len(right_at)`."""
    if left.ids is not None and right.ids is not None:
        return left.ids[left_at] == right.ids[right_at]
    return _same_text(left, left_at, right, right_at)


def _same_text(
    left: Vocabulary, left_at: torch.Tensor | slice, right: Vocabulary, right_at: torch.Tensor
) -> torch.Tensor:
    if not len(right_at):
        return torch.ones_like(right_at, dtype=torch.bool)
    left_starts, lengths = left.places(left_at)
    right_starts, right_lengths = right.places(right_at)
    same = lengths == right_lengths
    longest = int(lengths.max())
    for offset in range(0, min(longest, _LONG), WIDEST):
        at = (same & (lengths > offset)).nonzero().flatten() if offset else slice(None)
        count = words_for(longest - offset)
        words = load_words(left.text, left_starts[at] + offset, count)
        words ^= load_words(right.text, right_starts[at] + offset, count)
        drop_behind(words, lengths[at] - offset)
        same[at] &= functools.reduce(torch.bitwise_or, words.unbind(1)) == 0
    for at in (same & (lengths > _LONG)).nonzero().flatten().tolist():
        length, here, there = int(lengths[at]), int(left_starts[at]), int(right_starts[at])
        same[at] = torch.equal(left.text[here : here + length], right.text[there : there + length])
    return same
