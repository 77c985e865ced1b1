"""Entries held ready to be looked up, block by block: eight bytes an entry beside the entries."""

from __future__ import annotations

import numpy as np
import torch

from torch_warmstart.display import Advance
from torch_warmstart.entries import Entries, in_blocks, new_words, positions
from torch_warmstart.errors import VocabularyError
from torch_warmstart.vocabularies.join import (
    MISSING,
    Packing,
    hash_entries,
    same_entries,
    sort_words,
    tell_apart,
)

INDEX_BYTES = 16  # of work that a progress bar counts, an entry
_HASH_BYTES = 12  # of these, for hashing
_STRIDE = 1 << 22  # entries between two steps of it


class EntryIndex:
    """The numbers of entries by what they are.

    A key is the highest bits of a hash and the entry's number; what is found by the hash is
    compared with the entry, so that a collision costs time and never makes a wrong number.
    """

    def __init__(self, entries: Entries, advance: Advance = lambda *_: None) -> None:
        """Hashes and sorts; `advance` is told of `INDEX_BYTES` of work for each entry.

        Raises VocabularyError: an entry is there twice.
        """
        self._entries = entries
        self._packing = packing = Packing(max(1, len(entries)).bit_length())
        self._keys = keys = new_words(len(entries), torch.device("cpu"))

        for start in range(0, len(entries), _STRIDE):
            stride = slice(start, min(start + _STRIDE, len(entries)))

            def work(block: slice, first: int = start) -> None:
                here = slice(first + block.start, first + block.stop)
                hashes = hash_entries(entries, here).bitwise_and_(packing.hash_mask)
                torch.bitwise_or(hashes, torch.arange(here.start, here.stop), out=keys[here])

            in_blocks(work, stride.stop - stride.start, keys.device)
            advance("Hashing the vocabulary", _HASH_BYTES * (stride.stop - stride.start))
        sort_words(keys)
        advance("Indexing the vocabulary", (INDEX_BYTES - _HASH_BYTES) * len(entries))
        self._check_once()

    def _check_once(self) -> None:
        keys, packing = self._keys, self._packing

        def work(block: slice) -> torch.Tensor:
            before, here = keys[block], keys[block.start + 1 : block.stop + 1]
            at = positions((before ^ here) & packing.hash_mask == 0)
            return torch.stack([before[at], here[at]], dim=1) & packing.number_mask

        count = max(0, len(keys) - 1)
        alike = torch.cat([keys.new_empty(0, 2), *in_blocks(work, count, keys.device)])
        repeat, _ = tell_apart(self._entries, alike)
        if repeat is not None:
            first, second = map(self._entries.show, repeat)
            raise VocabularyError(
                f"{self._entries.origin} has an entry twice: {first} and {second}. Which row is "
                "its own cannot be known."
            )

    def find(self, wanted: Entries) -> torch.Tensor:
        """The number of each entry, -1 for what is not here: int64."""
        found = torch.full((len(wanted),), MISSING, dtype=torch.int64)
        if not len(wanted) or not len(self._keys):
            return found
        packing, keys = self._packing, self._keys.numpy()
        hashes = hash_entries(wanted, slice(0, len(wanted))).bitwise_and_(packing.hash_mask)
        at = torch.from_numpy(np.argsort(hashes.numpy()))  # neighbours are looked up together
        sought = hashes.index_select(0, at)
        places = torch.from_numpy(np.searchsorted(keys, sought.numpy()))
        while len(at):
            inside = positions(places < len(keys))
            at, sought, places = at[inside], sought[inside], places[inside]
            here = self._keys.index_select(0, places)
            alike = positions((here ^ sought) & packing.hash_mask == 0)
            at, sought, places, here = at[alike], sought[alike], places[alike], here[alike]
            numbers = here & packing.number_mask
            same = same_entries(wanted, at, self._entries, numbers)
            found[at[same]] = numbers[same]
            at, sought, places = at[~same], sought[~same], places[~same] + 1
        return found
