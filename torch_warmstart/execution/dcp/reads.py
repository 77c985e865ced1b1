"""What a reader of DCP is asked for, for one variable: boxes of stored tensors, and where they go.

stays in place             each stored part straight into what it becomes
moves rows                 ranges that cover the rows, no longer than the limit, into a buffer;
from there each row to where it belongs, and where several axes change each cell
a layout that makes more   whole tensors into memory of their own, together within the limit
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import take_rows
from torch_warmstart.errors import SettingsError
from torch_warmstart.execution.gathering import fill_cells, gather_cells, gather_rows
from torch_warmstart.execution.reading import exchanged, old_box, stored_box
from torch_warmstart.formats.torch.dcp import DcpListing
from torch_warmstart.model.sharding import Part, parts_of, written_to
from torch_warmstart.planning import PlanItem
from torch_warmstart.values import frozen

_INSTEAD = "tws.warm_start(model, directory) reads the same files, row by row"


@frozen(eq=False)
class Read:
    """A box of one stored part, and what is done with it."""

    key: str
    part: Box  # as it is stored
    wanted: Box  # in the whole tensor, within the part
    target: Callable[[], torch.Tensor]  # a tensor that the box is copied to
    place: Callable[[torch.Tensor], None]  # what is done when it has been


def reads_of(item: PlanItem, listing: DcpListing, limit: int) -> list[Read]:
    """What has to be read for the parts of a variable that are here.

    Raises SettingsError: a layout needs more at once than the limit.
    """
    order, parts = exchanged(item), parts_of(written_to(item.variable.tensor))
    if order is None:
        return _staged(item, parts, listing, limit)
    find = _direct if item.remapping is None else _of_rows
    return [read for part in parts for read in find(item, part, order, listing, limit)]


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _nothing(_: torch.Tensor) -> None:
    """Where a box has gone to where it belongs."""


def _direct(
    item: PlanItem, part: Part, order: Sequence[int], listing: DcpListing, limit: int
) -> Iterator[Read]:
    del limit  # no buffer is needed
    back = [order.index(dim) for dim in range(len(order))]
    box, stored = part.box.permuted(back), part.tensor.permute(tuple(back))
    for piece in listing.boxes_of(item.keys[0]):
        common = box.common(piece)
        if common is not None:
            view = common.within(box).of(stored)
            yield Read(item.keys[0], piece, common, functools.partial(_itself, view), _nothing)


def _of_rows(
    item: PlanItem, part: Part, order: Sequence[int], listing: DcpListing, limit: int
) -> Iterator[Read]:
    assert item.remapping is not None
    dim = order[item.axis]  # of the stored tensor
    box = stored_box(old_box(item, part.box), order)
    spec = item.sources[0]
    rows = item.remapping.rows[part.box.along(item.axis)].cpu()
    ordered, places = torch.sort(rows)
    for piece in listing.boxes_of(item.keys[0]):
        common = box.common(piece)
        if common is None:
            continue
        others = math.prod(common.sizes) // common.sizes[dim] * spec.nbytes // max(1, spec.numel)
        span = max(1, limit // max(1, others))
        for start, stop in _covered(ordered, common.along(dim), span):
            first, last = int(ordered[start]), int(ordered[stop - 1])
            run = _with_along(common, dim, first, last - first + 1)
            place = _placing(item, part, run, box, order)
            index, where = ordered[start:stop] - first, places[start:stop]
            yield Read(
                item.keys[0],
                piece,
                run,
                functools.partial(torch.empty, run.sizes, dtype=spec.dtype),
                functools.partial(place, index=index, where=where),
            )


def _covered(ordered: torch.Tensor, within: slice, span: int) -> Iterator[tuple[int, int]]:
    """Which of the sorted rows each range covers, where none is longer than `span`."""
    start, end = torch.searchsorted(
        ordered, ordered.new_tensor([within.start, within.stop])
    ).tolist()
    while start < end:
        limit = ordered.new_tensor(int(ordered[start]) + span)
        stop = min(end, int(torch.searchsorted(ordered, limit)))
        yield start, stop
        start = stop


def _placing(
    item: PlanItem, part: Part, run: Box, box: Box, order: Sequence[int]
) -> Callable[..., None]:
    """Puts rows of a buffer to where they belong in a part, of these what has a place there."""
    columns = run.within(box).permuted(order)
    others = []
    for change in item.further:
        old = change.remapping.rows[part.box.along(change.axis)].cpu()
        within = columns.along(change.axis)
        at = ((old >= within.start) & (old < within.stop)).nonzero().flatten()
        others.append((change.axis, at, old[at] - within.start))
    for change in item.changes:
        columns = columns.spread(change.axis, part.box.sizes[change.axis])
    out = columns.of(part.tensor)

    def place(buffer: torch.Tensor, index: torch.Tensor, where: torch.Tensor) -> None:
        rows = buffer.permute(tuple(order))
        for axis, rows_of in ((item.axis, index), *((axis, old) for axis, _, old in others)):
            rows = take_rows(rows.movedim(axis, 0), rows_of).movedim(0, axis)
        places = [(item.axis, where), *((axis, at) for axis, at, _ in others)]
        fill_cells(
            rows.to(out.device, out.dtype), [(axis, at.to(out.device)) for axis, at in places], out
        )

    return place


def _staged(item: PlanItem, parts: Sequence[Part], listing: DcpListing, limit: int) -> list[Read]:
    """All of the tensors that a layout makes one of; the last one that comes lets it be made."""
    if not parts:
        return []
    needed = sum(spec.nbytes for spec in item.sources)
    if needed > limit:
        raise SettingsError(
            f"{item.name}: {item.layout.name!r} needs {needed:,} bytes at once, more than "
            f"read_limit={limit:,}: raise that; or {_INSTEAD}."
        )
    boxes = [(spec.key, piece) for spec in item.sources for piece in listing.boxes_of(spec.key)]
    boxes = [(key, piece) for key, piece in boxes if piece.numel]
    memory: dict[str, torch.Tensor] = {}
    left = len(boxes)

    def target(key: str, piece: Box) -> torch.Tensor:
        for spec in item.sources:
            if spec.key not in memory:
                memory[spec.key] = torch.empty(spec.shape, dtype=spec.dtype)
        return piece.of(memory[key])

    def place(_: torch.Tensor) -> None:
        nonlocal left
        left -= 1
        if not left:
            tensors = [memory[spec.key] for spec in item.sources]
            whole = item.layout.to_torch(*tensors)[item.part]
            for part in parts:
                _write(item, part, whole)
            memory.clear()

    return [
        Read(key, piece, piece, functools.partial(target, key, piece), place)
        for key, piece in boxes
    ]


def _write(item: PlanItem, part: Part, whole: torch.Tensor) -> None:
    """Of a whole tensor in torch's layout what a part becomes; rows without an old one stay."""
    if item.remapping is None:
        part.tensor.copy_(part.box.of(whole))
    else:
        box = old_box(item, part.box)
        remappings = [(c.axis, c.remapping.rows[part.box.along(c.axis)]) for c in item.changes]
        if item.further:
            gather_cells([(0, box.of(whole))], remappings, part.tensor)
        else:
            (axis, rows), *_ = remappings
            gather_rows(box.of(whole), rows, part.tensor, axis)


def _with_along(box: Box, dim: int, start: int, size: int) -> Box:
    offsets, sizes = list(box.offsets), list(box.sizes)
    offsets[dim], sizes[dim] = start, size
    return Box(tuple(offsets), tuple(sizes))
