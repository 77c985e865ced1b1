"""The hash join: for every entry of one vocabulary, its place in another.

The entries' bytes are hashed to 64 bits a word at a time, both sides' hashes are sorted, and the
one is searched in the other, which walks memory in order. Equal hashes are then verified by
comparing the bytes, so a collision can cost time but never a wrong row. Everything is torch code
without a loop over entries and runs on whatever device the vocabularies are on.

On a CPU the entries are worked on in blocks, by as many threads as torch may use. A block is
smaller than what torch itself would split (its grain size), because torch's own threads wait for
each other after every single operation, and on a busy machine that costs many times the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from torch_warmstart.vocab import WORD, Vocabulary

MISSING = -1
_BLOCK = (1 << 15) - 1  # entries; at::internal::GRAIN_SIZE is 1 << 15

_LONG = 1024  # bytes; the rest of longer entries is hashed and compared one entry at a time

# Odd 64-bit constants of splitmix64 and of Knuth's multiplicative hashing, as signed integers.
_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_A = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_B = -7723592293110705685  # 0x94D049BB133111EB
_MASKS = torch.tensor([(1 << 8 * count) - 1 for count in range(WORD)] + [-1])  # first n bytes


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """A vocabulary made ready to be searched: sorted hashes (or ids), and where each comes from."""

    vocabulary: Vocabulary
    keys: torch.Tensor  # int64, sorted
    order: torch.Tensor  # int64, the entry that each key belongs to


def build_index(vocabulary: Vocabulary) -> Index:
    """Hashes and sorts a vocabulary once, for `repeated` and `join`."""
    keys = vocabulary.ids if vocabulary.ids is not None else hash_text(vocabulary)
    ordered, order = torch.sort(keys, stable=True)
    return Index(vocabulary, ordered, order)


def join(new: Vocabulary, old: Index) -> torch.Tensor:
    """For each entry of `new` its index in the old vocabulary, or -1: int64 of `len(new)`.

    Both are text or both are ids, on one device. If `old` has an entry twice, either index may
    come.
    """
    if new.ids is not None:
        return _search(new.ids, old)
    hashes = hash_text(new)
    candidates = _search(hashes, old)
    pairs = (candidates >= 0).nonzero().flatten()
    wrong = pairs[~same_text(new, pairs, old.vocabulary, candidates[pairs])]
    if len(wrong):
        _resolve_collisions(new, old, candidates, wrong, hashes[wrong])
    return candidates


def repeated(index: Index) -> tuple[int, int] | None:
    """Two places of one entry that is there twice, or None."""
    adjacent = (index.keys[1:] == index.keys[:-1]).nonzero().flatten()
    if not len(adjacent):
        return None
    first, second = index.order[adjacent], index.order[adjacent + 1]
    if not index.vocabulary.is_text:
        return int(first[0]), int(second[0])
    same = same_text(index.vocabulary, first, index.vocabulary, second)
    if bool(same.any()):
        at = int(same.nonzero()[0])
        return int(first[at]), int(second[at])
    # Different entries of one hash: a pair further apart may still be equal.
    return _first_repeat(index.vocabulary, torch.unique(torch.cat([first, second])).tolist())


def hash_text(vocabulary: Vocabulary) -> torch.Tensor:
    """A 64-bit hash of each entry's bytes: int64; equal entries have equal hashes."""
    data, starts, lengths = vocabulary.text()
    hashes = torch.empty_like(starts)

    def work(block: slice) -> None:
        hashes[block] = _hash_block(data, starts[block], lengths[block])

    _in_blocks(work, len(starts), starts.device)
    return hashes


def same_text(
    left: Vocabulary, left_at: torch.Tensor, right: Vocabulary, right_at: torch.Tensor
) -> torch.Tensor:
    """Whether entries are equal, pair by pair: bool of `len(left_at)`."""
    left_data, left_starts, left_lengths = left.text()
    right_data, right_starts, right_lengths = right.text()
    same = torch.empty_like(left_at, dtype=torch.bool)

    def work(block: slice) -> None:
        here, there = left_at[block], right_at[block]
        lengths = left_lengths[here]
        equal = _same_bytes(left_data, left_starts[here], right_data, right_starts[there], lengths)
        same[block] = equal.logical_and_(lengths == right_lengths[there])

    _in_blocks(work, len(left_at), left_at.device)
    return same


def _in_blocks(work: Callable[[slice], None], count: int, device: torch.device) -> None:
    """Calls `work` for every part of the entries; on a CPU in threads (torch frees the GIL)."""
    if device.type != "cpu":
        if count:
            work(slice(0, count))
        return
    blocks = [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
    threads = min(len(blocks), torch.get_num_threads())
    if threads < 2:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, blocks):  # raises what a block raised
            pass


def _hash_block(data: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    hashes = lengths * _STEP
    shortest, longest = (int(length) for length in torch.aminmax(lengths))
    for offset in range(0, min(longest, _LONG), WORD):
        if offset < shortest:  # every entry goes on: no need to pick those that do
            hashes = _mix(hashes ^ _words(data, starts + offset, lengths - offset))
            continue
        at = (lengths > offset).nonzero().flatten()
        words = _words(data, starts[at] + offset, lengths[at] - offset)
        hashes[at] = _mix(hashes[at] ^ words)
    for at in (lengths > _LONG).nonzero().flatten().tolist():
        rest = data[int(starts[at]) + _LONG : int(starts[at] + lengths[at])].cpu().numpy().tobytes()
        digest = hashlib.blake2b(rest, digest_size=WORD).digest()
        hashes[at] ^= int.from_bytes(digest, "little", signed=True)
    return hashes


def _same_bytes(
    left_data: torch.Tensor,
    left_from: torch.Tensor,
    right_data: torch.Tensor,
    right_from: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Whether `lengths` bytes agree from two places; the right data may end before them."""
    same = torch.ones_like(lengths, dtype=torch.bool)
    pairs: torch.Tensor | slice = slice(None)
    for offset in range(0, min(int(lengths.max()), _LONG), WORD):
        remaining = lengths - offset
        if offset:
            pairs = (same & (remaining > 0)).nonzero().flatten()
        last = len(right_data) - WORD  # entries of different lengths: stay inside
        left = _words(left_data, left_from[pairs] + offset, remaining[pairs])
        right_at = (right_from[pairs] + offset).clamp(max=last)
        same[pairs] = left == _words(right_data, right_at, remaining[pairs])
    for at in (same & (lengths > _LONG)).nonzero().flatten().tolist():
        length, here, there = int(lengths[at]), int(left_from[at]), int(right_from[at])
        same[at] = torch.equal(left_data[here : here + length], right_data[there : there + length])
    return same


def _search(new: torch.Tensor, old: Index) -> torch.Tensor:
    """For each value of `new` a place where `old` has it, or -1. Sorted in sorted is in order."""
    new_sorted, new_order = torch.sort(new)
    at = torch.searchsorted(old.keys, new_sorted).clamp_(max=len(old.keys) - 1)
    found = torch.where(old.keys[at] == new_sorted, old.order[at], MISSING)
    result = torch.empty_like(found)
    result[new_order] = found
    return result


def _words(data: torch.Tensor, positions: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """Eight bytes at each position as int64, those past an entry's end as zeros."""
    masks = _MASKS.to(data.device)
    return load_words(data, positions) & masks[remaining.clamp(max=WORD)]


def load_words(data: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Eight little-endian bytes at each (unaligned) position, as int64."""
    if data.device.type != "cpu":
        return data.unfold(0, WORD, 1)[positions].view(torch.int64).flatten()
    # numpy loads unaligned integers directly: less than half the time of gathering bytes.
    unaligned = np.ndarray((len(data) - WORD + 1,), "<i8", data.numpy(), strides=(1,))
    return torch.from_numpy(unaligned[positions.numpy()])


def _mix(hashes: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser: every input bit reaches every output bit."""
    hashes = (hashes ^ _shift_right(hashes, 30)) * _MIX_A
    hashes = (hashes ^ _shift_right(hashes, 27)) * _MIX_B
    return hashes ^ _shift_right(hashes, 31)


def _shift_right(values: torch.Tensor, count: int) -> torch.Tensor:
    """A logical shift; torch's own repeats the sign."""
    return (values >> count) & ((1 << (64 - count)) - 1)


def _resolve_collisions(
    new: Vocabulary,
    old: Index,
    candidates: torch.Tensor,
    wrong: torch.Tensor,
    hashes: torch.Tensor,
) -> None:
    """Settles, by value, the few entries whose hash equals that of a different entry."""
    suspects = old.order[torch.isin(old.keys, hashes)]
    places = {old.vocabulary.entry(at): at for at in suspects.tolist()}
    for at in wrong.tolist():
        candidates[at] = places.get(new.entry(at), MISSING)


def _first_repeat(vocabulary: Vocabulary, indices: list[int]) -> tuple[int, int] | None:
    seen: dict[bytes | int, int] = {}
    for index in indices:
        first = seen.setdefault(vocabulary.entry(index), index)
        if first != index:
            return first, index
    return None
