"""An item's old tensor as initialisers see it: rows of numbers, read as they are asked for.

Where other axes change too, rows are as wide as what the variable has of the old along these.

Numbers are float32 (float64 where it or the variable is), whatever the dtype, axis and rank are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from torch_warmstart.dtypes import aligned, is_aligned, summed_in
from torch_warmstart.execution.gathering import duplicate, gather_with
from torch_warmstart.execution.reading import Reader
from torch_warmstart.formats import Block
from torch_warmstart.planning import PlanItem


class OldTable:
    """The old tensor of an item, as rows of numbers."""

    def __init__(self, item: PlanItem, reader: Reader) -> None:
        self._item, self._reader = item, reader
        self._is_safe = reader.is_safe(item)
        dtype = item.sources[0].dtype or torch.float32
        # What sums are made in.
        self.dtype: torch.dtype = summed_in(dtype, item.variable.tensor.dtype)
        remapping = item.remapping
        assert remapping is not None
        self._size = min(remapping.num_old, item.old_size)
        further = [(change.axis, change.remapping.rows.cpu()) for change in item.further]
        self._columns = [(axis, rows[rows >= 0]) for axis, rows in further]

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Some of its rows, flat."""
        return self._taken(*self._reader.read_rows(self._item, rows))

    def whole(self, num_needed: int) -> torch.Tensor | None:
        """All of it, flat, where it lies on this machine just as it is needed; None: read rows.

        Args:
            num_needed: Of how many rows; for few of a file's they are rather read.
        """
        is_near = self._reader.is_callers or (
            self._reader.is_local and 2 * num_needed >= self._size
        )
        is_here = is_near and self._reader.has_whole(self._item)
        if not is_here or not self._is_safe or self._item.axis or self._columns:
            return None
        blocks, _ = self._reader.read_rows(self._item, torch.arange(self._size))
        if len(blocks) > 1 or len(blocks[0][1]) < self._size:
            return None
        table = blocks[0][1].detach()
        is_plain = table.dtype == self.dtype and table.is_contiguous() and table.ndim > 1
        if not is_plain or table.device.type != "cpu" or not is_aligned(table):
            return None
        return table.flatten(1)

    def is_overwritten(self, rows: torch.Tensor) -> bool:
        """Whether rows lie in what is going to be written."""
        return self._reader.is_overwritten(rows)

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows that the vocabulary describes."""
        starts = range(0, self._size, rows)
        if not self._reader.has_whole(self._item):  # of which there is never more than a part here
            for first in starts:
                yield first, self.read(torch.arange(first, min(first + rows, self._size)))
            return
        whole, _ = self._reader.read_rows(self._item, torch.arange(self._size))
        for first in starts:
            count = min(rows, self._size - first)
            if len(whole) == 1:  # a view, where it has the dtype
                part = whole[0][1].narrow(self._item.axis, first, count)
                part = aligned(part) if self._is_safe else duplicate(part)
                yield first, self._flat(part.detach().to("cpu", self.dtype))
            else:
                yield first, self._taken(whole, torch.arange(first, first + count))

    def _taken(self, blocks: Sequence[Block], rows: torch.Tensor) -> torch.Tensor:
        item = self._item
        shape = list(item.variable.shape)
        shape[item.axis] = len(rows)
        for change in item.further:
            shape[change.axis] = change.old_size
        out = torch.empty(shape, dtype=self.dtype)
        gather = gather_with(is_safe=self._is_safe)
        gather(blocks, rows, out, item.axis)
        return self._flat(out)

    def _flat(self, rows: torch.Tensor) -> torch.Tensor:
        for axis, columns in self._columns:
            rows = rows.index_select(axis, columns)
        return rows.movedim(self._item.axis, 0).flatten(1) if rows.ndim > 1 else rows[:, None]
