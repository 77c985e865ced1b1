"""A mixture's rows as one segment sum, `embedding_bag`, over the old rows that occur in it."""

from __future__ import annotations

import numpy as np
import torch

from torch_warmstart.execution.mixing.old_table import OldTable
from torch_warmstart.new_rows import Mixture

GATHERED_BYTES = 256 << 20  # of old rows that are held at a time
_SUMMED_BYTES = 3 << 20  # of new rows that are summed at a time


def mixed_rows(mixture: Mixture, table: OldTable, width: int, device: torch.device) -> torch.Tensor:
    """A mixture's rows: of `[m, width]`, of the table's dtype, on a device.

    Rows that share a bag are summed once. A row's terms are added in their order, so that a part of
    the rows is a part of the result, bit for bit.
    """
    limit = max(1, GATHERED_BYTES // max(1, width * table.dtype.itemsize))
    bags = mixture.bag_of(slice(None))
    is_plain = bool((bags.diff() > 0).all())  # each row has its own bag, in order
    used, place = (bags, None) if is_plain else torch.unique(bags, return_inverse=True)
    counts = mixture.offsets.diff()[used]
    parts = _parts(counts, limit, _num_distinct(mixture))
    rows = _new_rows(len(used), width, table.dtype, device)
    for part in parts:
        _sum_into(rows[part], mixture, used[part], counts[part], table=table)
    return rows if place is None else rows[place.to(device)]


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


def _sum_into(
    out: torch.Tensor,
    mixture: Mixture,
    bags: torch.Tensor,
    counts: torch.Tensor,
    *,
    table: OldTable,
) -> None:
    """The sums of some bags, some at a time: what is made on the way stays in the cache."""
    offsets = torch.zeros(len(bags) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    shift = torch.repeat_interleave(mixture.offsets[bags] - offsets[:-1], counts)
    terms = torch.arange(len(shift)) + shift
    indices, weights = mixture.indices[terms], mixture.weights[terms]
    occurs = _occurs(indices)
    old = table.whole(int(occurs.sum())) if out.device.type == "cpu" else None
    places = indices
    if old is None:
        old = table.read(occurs.nonzero().flatten()).to(out.device)
        places = (torch.cumsum(occurs, 0) - 1)[indices]
    places, weights = places.to(out.device), weights.to(out.device, old.dtype)
    row_bytes = max(1, out.shape[1] * out.element_size())
    step = max(1, _SUMMED_BYTES // row_bytes) if out.device.type == "cpu" else max(1, len(out))
    for start in range(0, len(out), step):
        part = slice(start, min(start + step, len(out)))
        first, last = int(offsets[part.start]), int(offsets[part.stop])
        out[part] = torch.nn.functional.embedding_bag(
            places[first:last],
            old,
            (offsets[part.start : part.stop + 1] - first).to(out.device),
            mode="sum",
            per_sample_weights=weights[first:last],
            include_last_offset=True,
        )


def _occurs(indices: torch.Tensor) -> torch.Tensor:
    """Which old rows occur: bool of as many as are needed for the highest."""
    occurs = torch.zeros(int(indices.max()) + 1 if len(indices) else 0, dtype=torch.bool)
    occurs[indices] = True
    return occurs
