"""All new rows of a variable, by whomever they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import summed_in
from torch_warmstart.errors import Finding, plural
from torch_warmstart.execution.commit import Filled, LaterRows
from torch_warmstart.execution.mixing.later import cast_rows, has_finite_sum, rows_later
from torch_warmstart.execution.mixing.old_table import OldTable
from torch_warmstart.execution.mixing.sums import mixed_rows
from torch_warmstart.execution.reading import Reader
from torch_warmstart.new_rows import (
    Made,
    Mixed,
    Mixtures,
    account_of,
    count_equal,
    draw_normals,
    equal_rows,
    make,
    unanswered_rows,
)
from torch_warmstart.planning import PlanItem, seen_shape

_DRAWN = 8192  # rows that noise is drawn for at a time
_SUMMED_BYTES = 64 << 20  # of whole rows of which only some columns are here, at a time


def fill_mixed(
    item: PlanItem,
    fill: Mixed,
    boxes: Sequence[Box],
    reader: Reader,
    *,
    seed: int,
    mixtures: Mixtures,
    guard: Callable[[str, Callable[[], Any]], Any],
) -> Filled:
    """Makes a variable's new rows.

    Args:
        item: The variable's.
        fill: Who makes which.
        boxes: The parts of the variable that are here. What is made for them is that part of what
            is made for the whole variable, bit for bit.
        reader: Reads the old table.
        seed: What random rows are drawn from.
        mixtures: What has been made for other tables.
        guard: Runs what a user wrote.
    """
    assert item.remapping is not None
    remapping, table = item.remapping.rows.cpu(), OldTable(item, reader)
    needed = torch.zeros(len(remapping), dtype=torch.bool)
    for box in boxes:
        needed[box.along(item.axis)] = True
    made = make(fill.answers.for_rows(needed), table, seed, mixtures, guard)
    at = (remapping < 0).nonzero().flatten()
    may_wait = not fill.answers.has_functions  # what these make is compared between ranks before
    rows = tuple(_rows_in(item, box, at, made, table, may_wait=may_wait) for box in boxes)
    unanswered = len(at) - sum(map(len, made))
    looked_at = [part for part in rows if isinstance(part, torch.Tensor)]
    notes = (*_notes(item.name, fill, made, unanswered), *_not_finite(item, looked_at))
    return Filled(rows, account_of(made, unanswered), notes)


def _rows_in(
    item: PlanItem,
    box: Box,
    at: torch.Tensor,
    made: Sequence[Made],
    table: OldTable,
    *,
    may_wait: bool,
) -> torch.Tensor | LaterRows:
    """The new rows of a box along the item's axis, in order; zeros where none is made."""
    along = box.along(item.axis)
    at = at[(at >= along.start) & (at < along.stop)]
    here = [one.only((one.new.rows >= along.start) & (one.new.rows < along.stop)) for one in made]
    here = [one for one in here if len(one.new)]
    later = rows_later(item, box, at, here, table) if may_wait else None
    return _rows_now(item, box, at, here, table) if later is None else later


def _rows_now(
    item: PlanItem, box: Box, at: torch.Tensor, here: Sequence[Made], table: OldTable
) -> torch.Tensor:
    """The same, made now."""
    if len(here) == 1 and len(here[0].new) == len(at):
        parts = [rows for _, rows in _parts_of(here[0], item, box, table)]
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).movedim(0, item.axis)
    sizes = [size for axis, size in enumerate(box.sizes) if axis != item.axis]
    dtype, device = item.variable.tensor.dtype, item.variable.device
    out = torch.zeros(len(at), *sizes, dtype=dtype, device=device)
    for one in here:
        to = torch.searchsorted(at, one.new.rows).to(device)
        for part, rows in _parts_of(one, item, box, table):
            out[to[part]] = rows
    return out.movedim(0, item.axis)


def _parts_of(
    one: Made, item: PlanItem, box: Box, table: OldTable
) -> Iterator[tuple[slice, torch.Tensor]]:
    """What was made, cut to a box's columns, of the variable's dtype, on its device.

    Whole rows are summed and then cut, as the last bit of a sum may depend on how many columns are
    summed together. Where columns are cut off, that is done for some rows at a time.
    """
    shape, device = seen_shape(item.variable.shape, item.axis, item.changes), item.variable.device
    rest = [axis for axis in range(len(shape)) if axis != item.axis]
    columns = (slice(None), *(box.along(axis) for axis in rest))
    count, is_whole = len(one.new), all(box.sizes[axis] == shape[axis] for axis in rest)
    step = count if is_whole else max(1, _SUMMED_BYTES // (table.dtype.itemsize * one.new.width))
    for first in range(0, count, step):
        part = slice(first, first + step)
        which = torch.zeros(count, dtype=torch.bool)
        which[part] = True
        rows = _rows_of(one.only(which), table, one.new.width, device)
        cut = rows.reshape(len(rows), *(shape[axis] for axis in rest))[columns]
        yield part, cast_rows(cut, item.variable.tensor.dtype, device)


def _rows_of(one: Made, table: OldTable, width: int, device: torch.device) -> torch.Tensor:
    if one.mixture is not None:
        place = device if device.type == "cuda" else torch.device("cpu")
        rows = mixed_rows(one.mixture, table, width, place)
        return _with_noise(rows, one, table) if one.noise else rows
    assert one.rows is not None
    if one.noise:
        return _with_noise(one.rows.to(table.dtype, copy=True).contiguous(), one, table)
    return one.rows


def _with_noise(rows: torch.Tensor, one: Made, table: OldTable) -> torch.Tensor:
    """Each number's own noise, in proportion to how the trained rows spread there."""
    spread = one.new.old.std.to(table.dtype) * one.noise
    stream = f"{one.new.name}/noise"
    for first in range(0, len(rows), _DRAWN):
        part = slice(first, first + _DRAWN)
        drawn = draw_normals(one.new.seed, stream, one.new.ordinals[part], rows.shape[1])
        rows[part] += (drawn * spread).to(rows.device)
    return rows


# -- what has shown only now -----------------------------------------------------------------------


def _notes(name: str, fill: Mixed, made: Sequence[Made], unanswered: int) -> Iterator[Finding]:
    if unanswered and not fill.num_unanswered:
        yield unanswered_rows(name, unanswered)
    known = {p.label for p in fill.answers.parts if p.num_equal or p.mixture is not None}
    late = {
        one.label: count
        for one in made
        if not one.noise and one.label not in known and (count := _count_equal(one))
    }
    if late:
        yield equal_rows(name, late)


def _not_finite(item: PlanItem, rows: Sequence[torch.Tensor]) -> Iterator[Finding]:
    """Of rows with NaN or infinity, of which the parts here tell."""
    if all(has_finite_sum(part.movedim(item.axis, 0)) for part in rows):
        return  # of many numbers the quickest way; what it is true of is looked at again
    count = sum(_num_broken(part.movedim(item.axis, 0)) for part in rows)
    if count:
        text = (
            f"{item.name}: {plural(count, 'new row')} with NaN or infinity: so are old rows, or "
            "vectors, of which they were made."
        )
        yield Finding("new-rows-not-finite", "warning", item.name, text)


def _num_broken(rows: torch.Tensor) -> int:
    starts = range(0, len(rows), _DRAWN)
    wide = summed_in(rows.dtype)  # of one byte torch does not tell
    parts = (rows[start : start + _DRAWN].to(wide) for start in starts)
    return sum(int((~part.isfinite().reshape(len(part), -1).all(1)).sum()) for part in parts)


def _count_equal(one: Made) -> int:
    if one.mixture is not None:
        return count_equal(one.mixture)
    assert one.rows is not None
    is_one = one.rows.stride(0) == 0  # expanded
    return len(one) if is_one and len(one) > 1 else 0
