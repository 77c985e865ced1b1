"""Reading some rows of a tensor that lies in a file as one run of bytes."""

from __future__ import annotations

import torch

from torch_warmstart.ranges import Range
from torch_warmstart.storage import Bytes, ByteSource


def read_rows(
    source: ByteSource, offset: int, length: int, row_bytes: int, rows: torch.Tensor
) -> Bytes:
    """The bytes of a whole tensor, of which at least `rows` are there.

    Local files are mapped, so nothing is read until it is looked at. Of a remote one the rows are
    fetched, as ranges: neighbours together, and across a gap that costs less than another request.
    """
    if source.max_gap is not None:
        source.prefetch(row_ranges(rows, row_bytes, offset, source.max_gap))
    return source.view(offset, length)


def row_ranges(rows: torch.Tensor, row_bytes: int, offset: int, max_gap: int) -> list[Range]:
    """The byte ranges that hold the rows (int64, any order), joined over gaps of `max_gap`."""
    ordered = torch.unique(rows)  # sorted
    if not len(ordered) or not row_bytes:
        return []
    gaps = (ordered[1:] - ordered[:-1] - 1) * row_bytes
    breaks = (gaps > max_gap).nonzero().flatten()
    firsts = torch.cat([ordered[:1], ordered[breaks + 1]])
    lasts = torch.cat([ordered[breaks], ordered[-1:]])
    starts = (offset + firsts * row_bytes).tolist()
    stops = (offset + (lasts + 1) * row_bytes).tolist()
    return list(zip(starts, stops, strict=True))
