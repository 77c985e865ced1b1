"""Several axes at once: cells that have an old row along every axis, and cells that have none.

What is worked with at a time is a chunk of rows along the first of the axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_warmstart.computing import with_old_row
from torch_warmstart.dtypes import as_bits
from torch_warmstart.execution.gathering.gather import CHUNK_BYTES, fill_rows, gather_blocks
from torch_warmstart.formats import Block

Rows = tuple[int, torch.Tensor]  # an axis, and rows along it


def gather_cells(
    blocks: Sequence[Block],
    remappings: Sequence[Rows],
    out: torch.Tensor,
    gather: Callable[..., Any] = gather_blocks,
) -> None:
    """Overwrites each cell of `out` that has an old row along every axis; others stay.

    Args:
        blocks: The source, in blocks along the first of the axes.
        remappings: Axes, no two of them equal, and int64 with an old row, or -1, for each new one.
        out: The tensor to fill, in place.
        gather: What moves rows along the first axis, as `gather_blocks` does.
    """
    (dim, first), *others = remappings
    places = [(axis, with_old_row(rows)) for axis, rows in others]
    old = [rows.index_select(0, at) for (_, rows), (_, at) in zip(others, places, strict=True)]
    wanted = with_old_row(first)
    sizes = list(out.shape)
    for axis, _ in others:
        sizes[axis] = blocks[0][1].shape[axis]
    sizes[dim] = 1
    step = max(1, CHUNK_BYTES // max(1, math.prod(sizes) * out.element_size()))
    for start in range(0, len(wanted), step):
        at = wanted[start : start + step]
        sizes[dim] = len(at)
        cells = out.new_empty(sizes)
        gather(blocks, first.index_select(0, at), cells, dim)
        for (axis, _), rows in zip(others, old, strict=True):
            cells = as_bits(cells).index_select(axis, rows).view(out.dtype)
        fill_cells(cells, [(dim, at), *places], out)


def fill_cells(rows: torch.Tensor | float, places: Sequence[Rows], out: torch.Tensor) -> None:
    """Overwrites the cells that are in all of some places along axes, chunk by chunk.

    Args:
        rows: Of the dtype of `out`, on its device, and of the size of the places along their axes;
            or one number.
        places: Axes, no two of them equal, and int64 with no place twice.
        out: The tensor to fill, in place.
    """
    (dim, at), *inner = places
    if not inner:
        fill_rows(rows, at, out, dim)
        return
    row_bytes = out.numel() // max(1, out.shape[dim]) * out.element_size()
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, len(at), step):
        part = at[start : start + step]
        piece = as_bits(out).index_select(dim, part).view(out.dtype)
        given = rows.narrow(dim, start, len(part)) if isinstance(rows, torch.Tensor) else rows
        fill_cells(given, inner, piece)
        fill_rows(piece, part, out, dim)
