"""Entries in the order of their bytes, those of equal ones together: the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.entries import ENTRY, WORD, Entries, as_vector, drop_behind, load_words

Numbers = npt.NDArray[np.int64]


def distinct(entries: Entries, counts: Numbers) -> tuple[Entries, Numbers]:
    """Each entry once, in the order of the entries themselves, with the sum of its counts."""
    if not len(entries):
        return entries, counts
    order, group = _sorted(entries)
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    sums = np.add.reduceat(counts[order], begins)
    return entries.take(torch.from_numpy(order[begins])), sums


def joined(parts: list[Entries], origin: str) -> Entries:
    """Entries of one kind one behind the other, in memory of their own."""
    if all(part.ids is not None for part in parts):
        ids = [part.ids for part in parts if part.ids is not None]
        is_unsigned = any(part.is_unsigned for part in parts)
        return Entries(origin, ENTRY, ids=torch.cat(ids), is_unsigned=is_unsigned)
    packed = [part.packed(slice(None)) for part in parts]
    lengths = torch.cat([lengths for _, lengths in packed])
    bounds = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=bounds[1:])
    data = torch.cat([*(data for data, _ in packed), torch.zeros(1, dtype=torch.uint8)])
    return Entries(origin, ENTRY, data, bounds)


def _sorted(entries: Entries) -> tuple[Numbers, Numbers]:
    """The numbers of the entries in order, and for each of these a number of its value."""
    if entries.ids is not None:
        ids = entries.ids.numpy()
        keys = ids.view(np.uint64) if entries.is_unsigned else ids
        order = np.argsort(keys, kind="stable")
        return order, np.cumsum(np.diff(keys[order], prepend=keys[order[:1]]) != 0)
    return _sorted_text(entries)


def _sorted_text(entries: Entries) -> tuple[Numbers, Numbers]:
    """By eight bytes after eight bytes; from the second on only what is equal so far.

    The number of a value is the place of the first entry that has it.
    """
    starts, lengths = entries.places(slice(None))
    order = np.arange(len(entries))
    group = np.zeros(len(entries), dtype=np.int64)
    tied = np.arange(len(entries))  # places in `order` that are not told apart yet
    offset = 0
    while len(tied):
        numbers = torch.from_numpy(order[tied])
        left = lengths[numbers] - offset
        words = _words(entries, starts[numbers] + offset, left)
        ends = left.clamp(max=WORD + 1).numpy()  # what ends here comes before what goes on
        sort = np.lexsort((ends, words, group[tied]))
        order[tied] = order[tied][sort]
        begins = _begins(group[tied], words[sort], ends[sort])
        group[tied] = np.maximum.accumulate(np.where(begins, tied, 0))
        tied = _still_tied(tied, group[tied], ends[sort] > WORD)
        offset += WORD
    return order, group


def _words(entries: Entries, starts: torch.Tensor, left: torch.Tensor) -> npt.NDArray[np.uint64]:
    """The next bytes of each entry as a number that sorts as they do."""
    left = left.clamp(min=0)
    places = as_vector(starts.clamp(max=len(entries.text)))
    words = drop_behind(load_words(as_vector(entries.text), places, 1), as_vector(left))
    found: npt.NDArray[np.uint64] = words[:, 0].view(np.uint64).byteswap()
    return found


def _begins(group: Numbers, words: npt.NDArray[np.uint64], ends: Numbers) -> npt.NDArray[np.bool_]:
    """Where something else begins than stood before."""
    begins = np.ones(len(words), dtype=bool)
    begins[1:] = (words[1:] != words[:-1]) | (ends[1:] != ends[:-1]) | (group[1:] != group[:-1])
    return begins


def _still_tied(tied: Numbers, group: Numbers, goes_on: npt.NDArray[np.bool_]) -> Numbers:
    """Those that are equal to a neighbour so far, and have more bytes."""
    beside = np.zeros(len(tied), dtype=bool)
    beside[1:] = group[1:] == group[:-1]
    beside[:-1] |= group[1:] == group[:-1]
    return tied[beside & goes_on]
