"""The hash join: for every entry of one vocabulary, its place in another.

The entries' bytes are hashed to 64 bits a word at a time, with numbers drawn anew in each process.
What is left of a hash beside an entry's number is sorted together with that number as one integer,
both vocabularies at once, so equal entries become neighbours: old before new, in order. Neighbours
are then verified by comparing the bytes, so a collision can cost time but never a wrong row.
Everything is code without a loop over entries and runs on whatever device the vocabularies are on,
in blocks.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence

import torch

from torch_warmstart.boxes import extremes, with_old_row
from torch_warmstart.display import Advance
from torch_warmstart.entries import (
    GRAIN,
    WORD,
    Entries,
    blocks,
    combined,
    drop_behind,
    filled,
    in_blocks,
    in_threads,
    load_words,
    new_words,
    positions,
    shifted,
    weighted,
    width_of,
    words_for,
    xor_into,
)
from torch_warmstart.storage import base_name
from torch_warmstart.values import frozen

MISSING = -1

_STRIDE = 1 << 22  # entries hashed or compared between two steps of the progress bar
_SORTERS = 4  # threads that sort; what it takes to keep more of them busy takes as long
_FEWEST = 1 << 10  # entries of a block
_CACHED = 1 << 16  # words that are loaded for a block
_SMALL = 4096  # entries of both sides: a dict has them before a sort has begun
_BITS = 64  # of a hash, and of a key
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


@frozen(eq=False)
class Joined:
    """What a join found.

    `rows` has for each new entry its index in the old vocabulary, or -1: int64. If the old one has
    an entry twice, `repeat` has the two places, of several such the one met first, and the rest
    means nothing. Unless `may_share`, no two new entries have the same row.
    """

    rows: torch.Tensor
    num_present: int  # new entries that the old vocabulary has
    may_share: bool
    repeat: tuple[int, int] | None = None


@frozen
class Packing:
    """How a key is made up: `highest bits of a hash | whether it is new | the entry's number`."""

    number_bits: int

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


def join(new: Entries, old: Entries, advance: Advance = lambda *_: None) -> Joined:
    """Looks up every entry of `new` in `old`: both text or both ids, on one device.

    Only `old` must not repeat itself. `advance` is told of `work_of` bytes of work altogether.
    """
    if not len(old):  # a slot's table that no id has come to
        return Joined(filled(len(new), MISSING, new.device), 0, False, None)
    if len(new) + len(old) <= _SMALL and new.device.type == "cpu":
        return _look_up(new, old, advance)
    packing = Packing(max(len(old), len(new)).bit_length())
    keys = new_words(len(old) + len(new), new.device)
    _pack(keys[: len(old)], old, 0, packing, advance)
    _pack(keys[len(old) :], new, packing.side, packing, advance)
    sort_words(keys)
    advance(f"Looking up {base_name(new.origin)}", keys.nbytes)
    rows = filled(len(new), MISSING, new.device)
    alike, num_present, may_share = _match(keys, packing, rows)
    del keys
    repeat, known = tell_apart(old, alike)
    if repeat is None:
        for at in _different(new, rows, old, advance).tolist():
            row = known.get(new.entry(at), MISSING)
            rows[at] = row
            num_present -= row == MISSING
    return Joined(rows, num_present, may_share, repeat)


def _look_up(new: Entries, old: Entries, advance: Advance) -> Joined:
    """A join of few entries: by a dict, whose hashes are drawn anew in each process, too."""
    known = dict(zip(values := old.values(slice(None)), range(len(old)), strict=True))
    if len(known) < len(old):
        return Joined(filled(len(new), MISSING, new.device), 0, False, _first_repeat(values))
    wanted = new.values(slice(None))
    rows = torch.tensor(list(map(known.get, wanted, itertools.repeat(MISSING))), dtype=torch.int64)
    advance(f"Comparing {base_name(new.origin)}", work_of(new, old))
    found = rows.index_select(0, with_old_row(rows))
    may_share = len(found) > 0 and bool((torch.bincount(found) > 1).any())
    return Joined(rows, len(found), may_share)


def _first_repeat(values: Sequence[bytes | int]) -> tuple[int, int]:
    """The places of an entry that is there twice, of several such the one met first."""
    known: dict[bytes | int, int] = {}
    for at, value in enumerate(values):
        if known.setdefault(value, at) != at:
            return known[value], at
    raise AssertionError("there is none")


def work_of(new: Entries, old: Entries) -> int:
    """Bytes that a join tells of: all that is hashed, sorted and compared."""
    return old.nbytes + 2 * new.nbytes + WORD * (len(old) + len(new))


def _steps(vocabulary: Entries) -> Iterator[tuple[slice, Entries]]:
    for start in range(0, len(vocabulary), _STRIDE):
        step = slice(start, min(start + _STRIDE, len(vocabulary)))
        yield step, vocabulary.slice(step.start, step.stop)


def _blocks(vocabulary: Entries) -> list[slice]:
    """Entries worked on at a time: on a CPU few, so that what is loaded of them stays cached."""
    count, size = len(vocabulary), GRAIN
    if vocabulary.is_text and count:
        width = width_of(count, vocabulary.nbytes)
        words = words_for(vocabulary.nbytes // count, width)
        size = max(_FEWEST, min(GRAIN, _CACHED // max(1, words)))
    return blocks(count, vocabulary.device, size)


# -- matching --------------------------------------------------------------------------------------


def _pack(
    keys: torch.Tensor, vocabulary: Entries, side: int, packing: Packing, advance: Advance
) -> None:
    """Writes the keys of a vocabulary's entries."""
    for step, part in _steps(vocabulary):

        def work(block: slice, part: Entries = part, step: slice = step) -> None:
            numbers = torch.arange(block.start, block.stop, device=keys.device) + step.start
            hashes = hash_entries(part, block).bitwise_and_(packing.hash_mask)
            torch.bitwise_or(hashes, numbers.bitwise_or_(side), out=keys[step][block])

        in_threads(work, _blocks(part), keys.device)
        advance(f"Hashing {base_name(vocabulary.origin)}", part.nbytes)


def sort_words(keys: torch.Tensor) -> None:
    """Sorts in place: on a CPU by numpy's vector instructions, in a tenth of torch's time."""
    if keys.device.type != "cpu":
        keys.copy_(torch.sort(keys).values)
        return
    pieces = min(_SORTERS, torch.get_num_threads())
    edges = [len(keys) * piece // pieces for piece in range(pieces + 1)]
    if len(keys) > GRAIN and pieces > 1:
        keys.numpy().partition(edges[1:-1])
        work = [keys[start:stop] for start, stop in itertools.pairwise(edges)]
        in_threads(lambda piece: piece.numpy().sort(), work, keys.device)
    else:
        keys.numpy().sort()


def _match(
    keys: torch.Tensor, packing: Packing, rows: torch.Tensor
) -> tuple[torch.Tensor, int, bool]:
    """Writes into `rows` for each new entry an old one of its hash, if there is one.

    Returns pairs of old entries of one hash, ascending, `[n, 2]`; for how many new entries there is
    one; and whether some of these are of one hash. Among several old ones a new entry gets any.
    """

    def work(block: slice) -> tuple[torch.Tensor, int, bool]:
        before, here = keys[block], keys[block.start + 1 : block.stop + 1]
        at = positions((before ^ here) & packing.hash_mask == 0)
        before, here = before.index_select(0, at), here.index_select(0, at)
        is_new = here & packing.side != 0
        alike = before.new_empty(0, 2)
        if not bool(is_new.all()):
            alike = torch.stack([before[~is_new], here[~is_new]], dim=1) & packing.number_mask
            before, here = before[is_new], here[is_new]
        behind_new = positions(before & packing.side != 0)
        shares = False
        if len(behind_new):  # repeats: what comes first of their hash is old, or none is
            first = torch.searchsorted(keys, here[behind_new] & packing.hash_mask)
            before[behind_new] = keys[first]
            has_old = before & packing.side == 0
            shares = bool(has_old[behind_new].any())
            before, here = before[has_old], here[has_old]
        rows.index_copy_(0, here & packing.number_mask, before & packing.number_mask)
        return alike, len(here), shares

    matched = in_blocks(work, len(keys) - 1, keys.device)
    alike = torch.cat([keys.new_empty(0, 2), *(alike for alike, _, _ in matched)])
    return alike, sum(count for _, count, _ in matched), any(shares for _, _, shares in matched)


def tell_apart(
    old: Entries, alike: torch.Tensor
) -> tuple[tuple[int, int] | None, dict[bytes | int, int]]:
    """Of old entries that share a hash: two places of an equal one, and all of them by value."""
    if not len(alike):
        return None, {}
    same = alike[same_entries(old, alike[:, 0], old, alike[:, 1])]
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


def hash_entries(vocabulary: Entries, block: slice) -> torch.Tensor:
    """A 64-bit hash of each entry: int64, best in the high bits; equal entries have equal ones."""
    if vocabulary.ids is not None:  # they only need to be spread
        return vocabulary.ids[block] * _SALT.step
    return _hash_block(vocabulary, block)


def _hash_block(vocabulary: Entries, block: slice) -> torch.Tensor:
    data, (starts, lengths) = vocabulary.text, vocabulary.places(block)
    shortest, longest = extremes(lengths)
    hashes = lengths * _SALT.step
    width = width_of(len(lengths), int(lengths.sum()))
    for offset in range(0, min(longest, _LONG), width):
        count = words_for(min(longest, _LONG) - offset, width)
        if offset < shortest:  # in all of them
            hashes += _hash_words(data, starts, lengths, offset, count)
            continue
        at = positions(lengths > offset)
        hashes[at] += _hash_words(data, starts[at], lengths[at], offset, count)
    for at in positions(lengths > _LONG).tolist():
        rest = data[int(starts[at]) + _LONG : int(starts[at] + lengths[at])].cpu().numpy().tobytes()
        digest = hashlib.blake2b(rest, digest_size=WORD, key=_SALT.key).digest()
        hashes[at] ^= int.from_bytes(digest, "little", signed=True)
    return hashes


def _hash_words(
    data: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, offset: int, count: int
) -> torch.Tensor:
    """The sum of a hash of each of `count` words from an offset on, another one for each word.

    A product's high bits depend on all lower ones, so a word's own high bits are carried down
    before. A word of zeros adds nothing, so that it does not matter how long other entries are.
    """
    words = load_words(data, starts + offset, count)
    words = drop_behind(words, lengths - offset)
    # Repeats the sign, which can be undone: no two become one.
    xor_into(words, shifted(words, _BITS // 2))
    first = offset // WORD
    return weighted(words, _SALT.factors[first : first + count])


# -- comparing -------------------------------------------------------------------------------------


def _different(new: Entries, rows: torch.Tensor, old: Entries, advance: Advance) -> torch.Tensor:
    """The new entries, by index, that are not what was found for them in `old`."""
    different = []
    for step, part in _steps(new):
        different.append(_different_of(part, rows[step], old) + step.start)
        advance(f"Comparing {base_name(new.origin)}", part.nbytes)
    return torch.cat([rows.new_empty(0), *different])


def _different_of(new: Entries, rows: torch.Tensor, old: Entries) -> torch.Tensor:
    def work(block: slice) -> torch.Tensor:
        found = rows[block]
        same = same_entries(
            new, block, old, found.clamp(min=0)
        )  # as if what is missing were the first
        wrong: torch.Tensor = positions((found >= 0) & ~same) + block.start
        return wrong

    return torch.cat(in_threads(work, _blocks(new), rows.device))


def same_entries(
    left: Entries, left_at: torch.Tensor | slice, right: Entries, right_at: torch.Tensor
) -> torch.Tensor:
    """Whether entries are equal, pair by pair: bool of `len(right_at)`."""
    if left.ids is not None and right.ids is not None:
        return left.ids[left_at] == right.ids[right_at]
    return _same_text(left, left_at, right, right_at)


def _same_text(
    left: Entries, left_at: torch.Tensor | slice, right: Entries, right_at: torch.Tensor
) -> torch.Tensor:
    if not len(right_at):
        return torch.ones_like(right_at, dtype=torch.bool)
    left_starts, lengths = left.places(left_at)
    right_starts, right_lengths = right.places(right_at)
    same = lengths == right_lengths
    longest = int(lengths.max())
    width = width_of(len(lengths), int(lengths.sum()))
    for offset in range(0, min(longest, _LONG), width):
        at = positions(same & (lengths > offset)) if offset else slice(None)
        count = words_for(min(longest, _LONG) - offset, width)
        words = load_words(left.text, left_starts[at] + offset, count)
        xor_into(words, load_words(right.text, right_starts[at] + offset, count))
        drop_behind(words, lengths[at] - offset)
        same[at] &= combined(words) == 0
    for at in positions(same & (lengths > _LONG)).tolist():
        length, here, there = int(lengths[at]), int(left_starts[at]), int(right_starts[at])
        same[at] = torch.equal(left.text[here : here + length], right.text[there : there + length])
    return same
