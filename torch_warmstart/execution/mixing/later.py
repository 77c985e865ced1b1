"""New rows that are summed where they go: many, whose memory would cost more than the sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import summed_in
from torch_warmstart.execution.commit import LaterRows
from torch_warmstart.execution.mixing.old_table import OldTable
from torch_warmstart.execution.mixing.sums import Sums, sums_of
from torch_warmstart.new_rows import Made
from torch_warmstart.planning import PlanItem

WORTH_BYTES = 16 << 20  # of new rows: for fewer it is not worth to know beforehand that all is well


class _Later(LaterRows):
    """Rows of several that have made them, and zeros in between."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self._parts: list[tuple[torch.Tensor, Sums | torch.Tensor]] = []
        self._is_left = torch.ones(shape[0], dtype=torch.bool)
        self.nbytes = torch.Size(shape).numel() * dtype.itemsize

    def add(self, to: torch.Tensor, rows: Sums | torch.Tensor) -> None:
        """What some of the rows are."""
        self._parts.append((to, rows))
        self._is_left[to] = False

    def blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        left = self._is_left.nonzero().flatten()
        if len(left):
            zeros = torch.zeros(1, *self._shape[1:], dtype=self._dtype)
            yield left, zeros.expand(len(left), *self._shape[1:])
        for to, rows in self._parts:
            runs = [(slice(None), rows)] if isinstance(rows, torch.Tensor) else rows.blocks()
            for run, made in runs:
                yield to[run], made.to(self._dtype).view(len(made), *self._shape[1:])

    def made(self) -> torch.Tensor:
        out = torch.empty(self._shape, dtype=self._dtype)
        for which, rows in self.blocks():
            out[which] = rows
        return out


def rows_later(
    item: PlanItem, box: Box, at: torch.Tensor, here: Sequence[Made], table: OldTable
) -> LaterRows | None:
    """The new rows of a box; None where nothing is gained, or they must be seen before.

    Args:
        item: The variable's.
        box: The part of it.
        at: Where its new rows are.
        here: Who has made which of them.
        table: The old rows.
    """
    tensor, sizes = item.variable.tensor, box.sizes[1:]
    later = _Later((len(at), *sizes), tensor.dtype)
    if not (_is_worth_it(later, item, here) and sizes and sizes == item.variable.shape[1:]):
        return None
    room = later.nbytes  # that old rows may take which are kept for it
    for one in here:
        rows = _rows_of(one, table, tensor.dtype, room)
        if rows is None:
            return None
        if isinstance(rows, Sums):
            room -= rows.held_bytes
        later.add(torch.searchsorted(at, one.new.rows), rows)
    return later


def _is_worth_it(later: LaterRows, item: PlanItem, here: Sequence[Made]) -> bool:
    """Whether rows are so many sums, on the CPU, and whole ones along the first axis."""
    is_summed = any(one.mixture is not None for one in here) and not any(o.noise for o in here)
    is_near = item.variable.device.type == "cpu" and item.axis == 0 and not item.further
    return is_summed and is_near and later.nbytes >= WORTH_BYTES


def _rows_of(
    one: Made, table: OldTable, dtype: torch.dtype, room: int
) -> Sums | torch.Tensor | None:
    """What one has made, or how it is made; None: now, as it might be NaN or infinity."""
    if one.mixture is None:
        assert one.rows is not None
        rows = cast_rows(one.rows, dtype, torch.device("cpu"))
        return rows if has_finite_sum(rows) else None
    sums = sums_of(one.mixture, table, one.new.width, room)
    return sums if sums is not None and sums.is_surely_finite(dtype) else None


def cast_rows(rows: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Rows of a dtype on a device; a single one for all stays a single one."""
    if len(rows) and rows.stride(0) == 0:
        return rows[:1].to(device, dtype).expand_as(rows)
    return rows.to(device, dtype)


def has_finite_sum(rows: torch.Tensor) -> bool:
    """Whether none is NaN or infinity: of many numbers the quickest way; a sum may overflow."""
    alike = rows[:1] if len(rows) and rows.stride(0) == 0 else rows
    return bool(alike.sum(dtype=summed_in(rows.dtype)).isfinite())
