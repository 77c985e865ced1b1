"""The hash join: for every entry of one vocabulary, its place in another.

The entries' bytes are hashed to 64 bits a word at a time, both sides' hashes are sorted, and the
one is searched in the other, which walks memory in order. Equal hashes are then verified by
comparing the bytes, so a collision can cost time but never a wrong row. Everything is torch code
without a loop over entries and runs on whatever device the vocabularies are on, in blocks.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from torch_warmstart.parallel import in_blocks
from torch_warmstart.vocab import Vocabulary
from torch_warmstart.words import WIDEST, WORD, drop_behind, load_words, words_for

MISSING = -1

_PART = 1 << 22  # new entries joined at a time, which bounds what is made on the way
_LONG = 1024  # bytes; the rest of longer entries is hashed and compared one entry at a time

# Odd 64-bit constants of splitmix64 and of Knuth's multiplicative hashing, as signed integers.
_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX = -4658895280553007687  # 0xBF58476D1CE4E5B9


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """A vocabulary made ready to be searched: sorted hashes (or ids), and where each comes from."""

    vocabulary: Vocabulary
    keys: torch.Tensor  # int64, sorted
    order: torch.Tensor  # int64, the entry that each key belongs to


def build_index(vocabulary: Vocabulary) -> Index:
    """Hashes and sorts a vocabulary once, for `repeated` and `join`."""
    keys = vocabulary.ids if vocabulary.ids is not None else hash_text(vocabulary)
    ordered, order = torch.sort(keys)
    return Index(vocabulary, ordered, order)


def join(
    new: Vocabulary, old: Index, done: Callable[[Vocabulary], None] = lambda _: None
) -> torch.Tensor:
    """For each entry of `new` its index in the old vocabulary, or -1: int64 of `len(new)`.

    Both are text or both are ids, on one device. If `old` has an entry twice, either index may
    come. `done` is called with every part of `new` that has been joined.
    """
    rows = torch.empty(len(new), dtype=torch.int64, device=new.device)
    for start in range(0, len(new), _PART):
        part = new.slice(start, min(start + _PART, len(new)))
        _join_part(part, old, rows[start : start + _PART])
        done(part)
    return rows


def _join_part(new: Vocabulary, old: Index, rows: torch.Tensor) -> None:
    if new.ids is not None:
        _search(new.ids, old, rows)
        return
    _search(hash_text(new), old, rows)
    wrong = _different(new, rows, old.vocabulary)
    if len(wrong):
        _resolve_collisions(new, old, rows, wrong)


def repeated(index: Index) -> tuple[int, int] | None:
    """The places of one entry that is there twice, of several the one met first; or None."""
    adjacent = (index.keys[1:] == index.keys[:-1]).nonzero().flatten()
    if not len(adjacent):
        return None
    left, right = index.order[adjacent], index.order[adjacent + 1]
    first, second = torch.minimum(left, right), torch.maximum(left, right)
    if index.vocabulary.is_text:
        same = _same_text(index.vocabulary, first, index.vocabulary, second)
        if not bool(same.any()):
            # Different entries of one hash: a pair further apart may still be equal.
            return _first_repeat(index.vocabulary, torch.unique(torch.cat([first, second])))
        first, second = first[same], second[same]
    at = int(second.argmin())
    return int(first[at]), int(second[at])


def hash_text(vocabulary: Vocabulary) -> torch.Tensor:
    """A 64-bit hash of each entry's bytes: int64; equal entries have equal hashes."""
    hashes = torch.empty(len(vocabulary), dtype=torch.int64, device=vocabulary.device)

    def work(block: slice) -> None:
        hashes[block] = _hash_block(vocabulary, block)

    in_blocks(work, len(vocabulary), vocabulary.device)
    return hashes


def _hash_block(vocabulary: Vocabulary, block: slice | torch.Tensor) -> torch.Tensor:
    data, (starts, lengths) = vocabulary.text, vocabulary.places(block)
    longest = int(lengths.max())
    hashes = lengths * _STEP
    for offset in range(0, min(longest, _LONG), WIDEST):
        if not offset:
            hashes += _hash_words(data, starts, lengths, 0, longest)
            continue
        at = (lengths > offset).nonzero().flatten()
        hashes[at] += _hash_words(data, starts[at], lengths[at], offset, longest)
    for at in (lengths > _LONG).nonzero().flatten().tolist():
        rest = data[int(starts[at]) + _LONG : int(starts[at] + lengths[at])].cpu().numpy().tobytes()
        digest = hashlib.blake2b(rest, digest_size=WORD).digest()
        hashes[at] ^= int.from_bytes(digest, "little", signed=True)
    return _scramble(hashes)


def _hash_words(
    data: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, offset: int, longest: int
) -> torch.Tensor:
    """The sum of a hash of each word from an offset on, another one for each word.

    A word of zeros adds nothing, so that it does not matter how long other entries are.
    """
    words = load_words(data, starts + offset, words_for(longest - offset))
    total = torch.zeros_like(lengths)
    for number, word in enumerate(drop_behind(words, lengths - offset).unbind(1), offset // WORD):
        total += _scramble(word * (_STEP + 2 * number)).mul_(_MIX)
    return total


def _scramble(hashes: torch.Tensor) -> torch.Tensor:
    """Carries the high bits, in which a product is best, down to the low ones; in place.

    torch's shift repeats the sign, which can be undone as well: no two values become one.
    """
    return hashes.bitwise_xor_(hashes >> 32)


def _different(new: Vocabulary, rows: torch.Tensor, old: Vocabulary) -> torch.Tensor:
    """The new entries, by index, that are not what was found for them in `old`."""

    def work(block: slice) -> torch.Tensor:
        at: torch.Tensor = (rows[block] >= 0).nonzero().flatten() + block.start
        return at[~_same_text(new, at, old, rows[at])]

    return torch.cat(in_blocks(work, len(rows), rows.device))


def _same_text(
    left: Vocabulary, left_at: torch.Tensor, right: Vocabulary, right_at: torch.Tensor
) -> torch.Tensor:
    """Whether entries are equal, pair by pair: bool of `len(left_at)`."""
    if not len(left_at):
        return torch.ones_like(left_at, dtype=torch.bool)
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


def _search(new: torch.Tensor, old: Index, rows: torch.Tensor) -> None:
    """For each value of `new` a place where `old` has it, or -1. Sorted in sorted is in order."""
    ordered, order = torch.sort(new)

    def work(block: slice) -> None:
        keys = ordered[block]
        at = torch.searchsorted(old.keys, keys).clamp_(max=len(old.keys) - 1)
        found = old.keys.index_select(0, at) == keys
        values = old.order.index_select(0, at).masked_fill_(~found, MISSING)
        rows.index_copy_(0, order[block], values)

    in_blocks(work, len(new), new.device)


def _resolve_collisions(
    new: Vocabulary, old: Index, rows: torch.Tensor, wrong: torch.Tensor
) -> None:
    """Settles, by value, the few entries whose hash equals that of a different entry."""
    hashes = old.keys[torch.isin(old.order, rows[wrong])]
    suspects = old.order[torch.isin(old.keys, hashes)]
    places = {old.vocabulary.entry(at): at for at in suspects.tolist()}
    for at in wrong.tolist():
        rows[at] = places.get(new.entry(at), MISSING)


def _first_repeat(vocabulary: Vocabulary, entries: torch.Tensor) -> tuple[int, int] | None:
    seen: dict[bytes | int, int] = {}
    for index in entries.tolist():
        first = seen.setdefault(vocabulary.entry(index), index)
        if first != index:
            return first, index
    return None
