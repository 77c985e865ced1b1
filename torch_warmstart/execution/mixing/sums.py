"""A mixture's rows as one segment sum, `embedding_bag`, over the old rows that occur in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from torch_warmstart.execution.mixing.old_table import OldTable
from torch_warmstart.new_rows import Mixture
from torch_warmstart.values import frozen

GATHERED_BYTES = 256 << 20  # of old rows that are held at a time
_SUMMED_BYTES = 3 << 20  # of new rows that are summed at a time: they stay in the cache


@frozen(eq=False)
class Sums:
    """Weighted sums of old rows, which are made when they are asked for, some at a time."""

    old: torch.Tensor  # of `[k, width]`, of the dtype and on the device that sums are made in
    offsets: torch.Tensor  # int64 of `[m + 1]`: where the terms of each sum begin
    places: torch.Tensor  # int64, of each term which of `old` it is
    weights: torch.Tensor  # of each term, of the dtype of `old`
    held_bytes: int  # of `old`, unless it is the old table itself, which is there anyway

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Runs of them."""
        step = len(self)
        if self.old.device.type == "cpu":
            step = _SUMMED_BYTES // max(1, self.old.shape[1] * self.old.element_size())
        step = max(1, step)
        for start in range(0, len(self), step):
            part = slice(start, min(start + step, len(self)))
            first, last = int(self.offsets[part.start]), int(self.offsets[part.stop])
            rows = torch.nn.functional.embedding_bag(
                self.places[first:last],
                self.old,
                self.offsets[part.start : part.stop + 1] - first,
                mode="sum",
                per_sample_weights=self.weights[first:last],
                include_last_offset=True,
            )
            yield part, rows

    def is_surely_finite(self, dtype: torch.dtype) -> bool:
        """Whether none can be NaN or infinity, in a dtype too: the largest number tells."""
        if not self.old.numel() or not len(self):
            return True
        largest = max(abs(bound.item()) for bound in torch.aminmax(self.old))
        size = torch.zeros(len(self), dtype=self.weights.dtype)
        size.index_add_(0, _numbers(self.offsets.diff()), self.weights.abs())
        return largest * float(size.max()) <= torch.finfo(dtype).max / 2  # not so of a NaN


def mixed_rows(mixture: Mixture, table: OldTable, width: int, device: torch.device) -> torch.Tensor:
    """A mixture's rows: of `[m, width]`, of the table's dtype, on a device.

    Rows that share a bag are summed once. A row's terms are added in their order, so that a part of
    the rows is a part of the result, bit for bit.
    """
    bags = mixture.bag_of(slice(None))
    used, place = (bags, None) if _is_ascending(bags) else torch.unique(bags, return_inverse=True)
    counts = mixture.offsets.diff()[used]
    parts = _parts(counts, _limit(width, table), _num_distinct(mixture))
    rows = _new_rows(len(used), width, table.dtype, device)
    for part in parts:
        for at, made in _sums(mixture, used[part], counts[part], table, device).blocks():
            rows[part][at] = made
    return rows if place is None else rows[place.to(device)]


def sums_of(mixture: Mixture, table: OldTable, width: int, room: int) -> Sums | None:
    """The same, on the CPU, to be made when they are written.

    None: rows share bags, the old rows are too many to be held or take more than some bytes, or
    they are about to be written over themselves.
    """
    bags, num_distinct = mixture.bag_of(slice(None)), _num_distinct(mixture)
    if not _is_ascending(bags) or num_distinct > _limit(width, table):
        return None
    is_copied = table.whole(num_distinct) is None
    if is_copied and num_distinct * width * table.dtype.itemsize > room:
        return None
    made = _sums(mixture, bags, mixture.offsets.diff()[bags], table, torch.device("cpu"))
    return None if table.is_overwritten(made.old) else made


def _is_ascending(bags: torch.Tensor) -> bool:
    """Whether each row has its own bag, in order."""
    return bool((bags.diff() > 0).all())


def _limit(width: int, table: OldTable) -> int:
    """How many old rows may be held."""
    return max(1, GATHERED_BYTES // max(1, width * table.dtype.itemsize))


def _num_distinct(mixture: Mixture) -> int:
    return int(_occurs(mixture.indices).sum())


def _parts(counts: torch.Tensor, limit: int, num_distinct: int) -> list[slice]:
    """Runs of bags that need so many old rows at most; a bag by itself may need more."""
    if num_distinct <= limit or len(counts) < 2:
        return [slice(0, len(counts))]
    ends = torch.cumsum(counts, 0)
    parts, start, before = [], 0, 0
    while start < len(counts):
        stop = max(start + 1, int(torch.searchsorted(ends, before + limit, right=True)))
        parts.append(slice(start, stop))
        start, before = stop, int(ends[stop - 1])
    return parts


def _new_rows(count: int, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Uninitialised rows; on a CPU by numpy, which asks Linux for huge pages."""
    if device.type != "cpu" or not count * width:
        return torch.empty(count, width, dtype=dtype, device=device)
    memory = torch.from_numpy(np.empty(count * width * dtype.itemsize, dtype=np.uint8))
    return memory.view(dtype).view(count, width)


def _sums(
    mixture: Mixture,
    bags: torch.Tensor,
    counts: torch.Tensor,
    table: OldTable,
    device: torch.device,
) -> Sums:
    """The sums of some bags, each with so many terms."""
    offsets = torch.zeros(len(bags) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    shift = torch.repeat_interleave(mixture.offsets[bags] - offsets[:-1], counts)
    terms = torch.arange(len(shift)) + shift
    indices, weights = mixture.indices[terms], mixture.weights[terms]
    occurs = _occurs(indices)
    old = table.whole(int(occurs.sum())) if device.type == "cpu" else None
    places = indices
    if old is None:
        old = table.read(occurs.nonzero().flatten()).to(device)
        places = (torch.cumsum(occurs, 0) - 1)[indices]
    held = 0 if places is indices else old.nbytes
    weights = weights.to(device, old.dtype)
    return Sums(old, offsets.to(device), places.to(device), weights, held)


def _numbers(counts: torch.Tensor) -> torch.Tensor:
    """Of each term which sum it belongs to."""
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def _occurs(indices: torch.Tensor) -> torch.Tensor:
    """Which old rows occur: bool of as many as are needed for the highest."""
    occurs = torch.zeros(int(indices.max()) + 1 if len(indices) else 0, dtype=torch.bool)
    occurs[indices] = True
    return occurs
