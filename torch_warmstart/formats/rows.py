"""Reading some rows of tensors that lie in a file as runs of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from torch_warmstart.storage import NO_RANGES, Bytes, ByteSource, RangeArray, check_range, joined
from torch_warmstart.values import frozen


@frozen
class Run:
    """Rows that lie in a file one behind the other."""

    source: ByteSource
    offset: int  # of the first, bytes
    row_bytes: int
    count: int
    first: int = 0  # its number in the tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.count * self.row_bytes


def fetch_rows(runs: Sequence[Run], rows: torch.Tensor) -> None:
    """Fetches those of the rows (int64, any order; negative: none) that are in remote files.

    They come as ranges: neighbours together, and across a gap that costs less than another request.
    All ranges of a file are fetched together. Local files are mapped and need no such thing.
    """
    remote = [run for run in runs if run.source.max_gap is not None]
    if not remote:
        return
    wanted = torch.unique(rows[rows >= 0])  # sorted
    by_source: dict[int, tuple[ByteSource, list[RangeArray]]] = {}
    for run in remote:
        check_range(run.source, run.offset, run.nbytes)
        edges = wanted.new_tensor([run.first, run.first + run.count])
        start, stop = torch.searchsorted(wanted, edges).tolist()
        _, ranges = by_source.setdefault(id(run.source), (run.source, []))
        inside = wanted[start:stop] - run.first
        ranges.append(row_ranges(inside, run.row_bytes, run.offset, run.source.max_gap or 0))
    for source, ranges in by_source.values():
        source.prefetch(np.concatenate(ranges))


def read_rows(
    source: ByteSource, offset: int, length: int, row_bytes: int, rows: torch.Tensor
) -> Bytes:
    """The bytes of a whole tensor, of which at least `rows` are there."""
    if row_bytes:
        fetch_rows([Run(source, offset, row_bytes, length // row_bytes)], rows)
    return source.view(offset, length)


def row_ranges(rows: torch.Tensor, row_bytes: int, offset: int, max_gap: int) -> RangeArray:
    """The byte ranges that hold the rows (int64, sorted), joined over gaps of `max_gap` bytes."""
    if not len(rows) or not row_bytes:
        return NO_RANGES
    starts = rows.cpu().numpy() * row_bytes + offset
    return joined(starts, starts + row_bytes, max_gap)
