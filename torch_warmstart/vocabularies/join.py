"""The join: for every entry of one vocabulary, its place in another.

The old entries are indexed by their hashes, and the new ones looked up there block by block. Few
entries are looked up in a dict.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from torch_warmstart.computing import blocks, in_threads
from torch_warmstart.display import Advance
from torch_warmstart.entries import Entries, as_vector, filled, new_words, unmarked
from torch_warmstart.storage import base_name
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.entry_index import MISSING, EntryIndex, index_work
from torch_warmstart.vocabularies.hashing import BLOCK, strides

_SMALL = 8192  # entries of both sides: a dict has them before an index is made


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


def join(new: Entries, old: Entries, advance: Advance = lambda *_: None) -> Joined:
    """Looks up every entry of `new` in `old`: both text or both ids, on one device.

    Only `old` must not repeat itself. `advance` is told of `work_of` bytes of work altogether.
    """
    if not len(old):  # a slot's table that no id has come to
        return Joined(filled(len(new), MISSING, new.device), 0, False, None)
    if len(new) + len(old) <= _SMALL and new.device.type == "cpu":
        return _look_up(new, old, advance)
    index = EntryIndex(old, advance)
    if index.repeat is not None:
        return Joined(filled(len(new), MISSING, new.device), 0, False, index.repeat)
    return _look_up_in(index, new, old, advance)


def _look_up_in(index: EntryIndex, new: Entries, old: Entries, advance: Advance) -> Joined:
    rows = new_words(len(new), new.device)
    for stride in strides(new):
        index.find_stride(new, stride, rows[stride])
        part = new.slice(stride.start, stride.stop)
        advance(f"Looking up {base_name(new.origin)}", part.nbytes)
    num_present, num_distinct = _count_found(rows, len(old))
    return Joined(rows, num_present, may_share=num_distinct < num_present)


def _count_found(rows: torch.Tensor, num_old: int) -> tuple[int, int]:
    """How many rows are found, and how many different ones."""
    found = as_vector(rows)
    is_found = unmarked(num_old + 1, found)

    def work(block: slice) -> int:
        here = found[block]
        is_found[here] = True  # the last one for what is missing
        return int((here != MISSING).sum())

    parts = blocks(len(rows), rows.device, BLOCK)
    num_present = sum(in_threads(work, parts, rows.device))
    return num_present, int(is_found[:num_old].sum())


def _look_up(new: Entries, old: Entries, advance: Advance) -> Joined:
    """A join of few entries: by a dict, whose hashes are drawn anew in each process, too."""
    known = dict(zip(values := old.values(slice(None)), range(len(old)), strict=True))
    if len(known) < len(old):
        return Joined(filled(len(new), MISSING, new.device), 0, False, _first_repeat(values))
    wanted = new.values(slice(None))
    rows = np.array([*map(known.get, wanted, itertools.repeat(MISSING))], dtype=np.int64)
    advance(f"Looking up {base_name(new.origin)}", work_of(new, old))
    found = rows[rows != MISSING]
    may_share = len(found) > 0 and int(np.bincount(found).max()) > 1
    return Joined(torch.from_numpy(rows), len(found), may_share)


def _first_repeat(values: Sequence[bytes | int]) -> tuple[int, int]:
    """The places of an entry that is there twice, of several such the one met first."""
    known: dict[bytes | int, int] = {}
    for at, value in enumerate(values):
        if known.setdefault(value, at) != at:
            return known[value], at
    raise AssertionError("there is none")


def work_of(new: Entries, old: Entries) -> int:
    """Bytes that a join tells of: all that is indexed and looked up."""
    return index_work(old) + new.nbytes
