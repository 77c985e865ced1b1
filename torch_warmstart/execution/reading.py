"""Reading what a plan's items are made of: fetched together, verified, in torch's layout.

Nothing is copied that can be a view on top of the file. Where a remapping moves rows that are rows
of the file too, only those are fetched of a remote file, and a tensor that is kept in slices comes
as its blocks, without being put together. Of a variable that is sharded only what becomes this
process's boxes is read, if its layout does no more than exchange dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.boxes import Box
from torch_warmstart.display import Advance
from torch_warmstart.execution.gathering import duplicate
from torch_warmstart.execution.watching import Watch
from torch_warmstart.formats import Block, Checkpoint
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.model import WrittenMemory, is_sharded
from torch_warmstart.planning import PlanItem, WarmStartPlan
from torch_warmstart.storage import is_remote


@dataclass(frozen=True, slots=True)
class Share:
    """The part of some work that one of several processes does."""

    at: int
    count: int

    def of(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys that are this one's."""
        return keys[self.at :: self.count]


ALL = Share(0, 1)


def fetch_and_verify(
    plan: WarmStartPlan, items: Sequence[PlanItem], advance: Advance, share: Share = ALL
) -> None:
    """Fetches together what is needed whole, for itself or for its checksum, and checks that.

    Args:
        plan: What is planned.
        items: Those of it that are read.
        advance: Is told what has been found.
        share: Which of the checksums this process checks.
    """
    specs = {spec.key: spec for item in items for spec in item.sources}
    verified = {*share.of(list(specs))} if plan.settings.verify else set()
    of_checksums = verified if plan.checkpoint.has_checksums else set()
    whole = {key for item in items if not _is_read_in_parts(item) for key in item.keys}
    plan.checkpoint.prefetch([key for key in specs if key in of_checksums or key in whole])
    for spec in specs.values():
        if spec.key in verified:
            plan.checkpoint.verify(spec.key)
        advance(f"{'Verified' if spec.key in verified else 'Found'} {spec.key}", spec.nbytes)


class Reader:
    """Reads items' tensors; those on top of what is going to be overwritten are copied."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        targets: Iterable[torch.Tensor],
        watch: Watch | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._overwritten = WrittenMemory(targets)
        self._watch = watch
        if watch is not None:
            watch.leave_out(self._overwritten.files)

    def read(self, item: PlanItem) -> torch.Tensor:
        """What an item's variable becomes, or the rows of it are taken from."""
        tensors = [self._tensor(key) for key in item.keys]
        return item.layout.to_torch(*tensors)[item.part]

    def read_box(self, item: PlanItem, box: Box) -> torch.Tensor:
        """The part of it that a box of an item's variable becomes."""
        order = exchanged(item)
        if order is None:
            return self._box_of_whole(item, box)
        return self._view_box(item.keys[0], box, order)

    def read_blocks_of_box(self, item: PlanItem, box: Box) -> Sequence[Block]:
        """In blocks along the item's axis what the rows of a box are taken from."""
        assert item.remapping is not None
        order, everything = exchanged(item), old_box(item, box)
        if order is None:
            return [(0, self._box_of_whole(item, everything))]
        if order[item.axis]:
            return [(0, self._view_box(item.keys[0], everything, order))]
        rows = item.remapping.rows[box.along(item.axis)]
        blocks = self._checkpoint.box_blocks(item.keys[0], rows, stored_box(everything, order))
        return [(first, self._apart(block).permute(order)) for first, block in blocks]

    def _view_box(self, key: str, box: Box, order: Sequence[int]) -> torch.Tensor:
        """A box of a variable, of which dimension i is dimension `order[i]` of the file's."""
        stored = stored_box(box, order)
        return self._apart(self._checkpoint.view_box(key, stored)).permute(tuple(order))

    def _box_of_whole(self, item: PlanItem, box: Box) -> torch.Tensor:
        """Of a layout that makes a tensor of its own nothing stays but the box."""
        tensors = [self._tensor(key) for key in item.keys]
        whole = item.layout.to_torch(*tensors)[item.part]
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        piece = box.of(whole)
        return piece if whole.untyped_storage().data_ptr() in memory else piece.clone()

    def read_blocks(self, item: PlanItem) -> Sequence[Block]:
        """The same in blocks along the item's axis, of which only the rows it needs are there."""
        if item.remapping is None or not _moves_rows_of_the_file(item):
            return [(0, self.read(item))]
        blocks = self._checkpoint.row_blocks(item.keys[0], item.remapping.rows)
        return [
            (first, item.layout.to_torch(self._apart(block))[item.part]) for first, block in blocks
        ]

    def read_rows(self, item: PlanItem, rows: torch.Tensor) -> Sequence[Block]:
        """The same of rows that are looked at now, before anything is written.

        Where `is_safe` says no, they may be looked at in a guarded way only.
        """
        layout, part = item.layout, item.part
        if not _moves_rows_of_the_file(item):
            tensors = [self._checkpoint.view_tensor(key) for key in item.keys]
            return [(0, layout.to_torch(*tensors)[part])]
        blocks = self._checkpoint.row_blocks(item.keys[0], rows)
        return [(first, layout.to_torch(block)[part]) for first, block in blocks]

    @property
    def is_callers(self) -> bool:
        """Whether the tensors are those that the caller has in memory."""
        return self._checkpoint.is_callers

    @property
    def is_local(self) -> bool:
        """Whether they lie on this machine."""
        return self.is_callers or not is_remote(self._checkpoint.url)

    def is_safe(self, item: PlanItem) -> bool:
        """Whether what an item is made of can be looked at as long as the steps hold it."""
        return self._watch is None or self._watch.is_safe(item.keys)

    def _tensor(self, key: str) -> torch.Tensor:
        tensor = self._checkpoint.view_tensor(key)
        assert isinstance(tensor, torch.Tensor)
        return self._apart(tensor)

    def _apart(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._overwritten.holds(tensor):
            return duplicate(tensor)  # warm-started from itself: read before it is overwritten
        if self._watch is not None:
            self._watch.add(tensor)
        return tensor


def old_box(item: PlanItem, box: Box) -> Box:
    """Of the old tensor, in torch's layout, what the rows of a box may be taken from."""
    for change in item.changes:
        box = box.spread(change.axis, change.old_size)
    return box


def seen_box(item: PlanItem, box: Box) -> Box:
    """A box as initialisers see it: along all axes but the item's only what has an old row."""
    offsets, sizes = list(box.offsets), list(box.sizes)
    for change in item.further:
        is_there, along = change.remapping.rows >= 0, box.along(change.axis)
        offsets[change.axis] = int(is_there[: along.start].sum())
        sizes[change.axis] = int(is_there[along].sum())
    return Box(tuple(offsets), tuple(sizes))


def _is_read_in_parts(item: PlanItem) -> bool:
    """Whether no more of an item's tensor need be there than some rows of it."""
    if item.remapping is not None and _moves_rows_of_the_file(item):
        return True
    return is_sharded(item.variable.tensor) and exchanged(item) is not None


def stored_box(box: Box, order: Sequence[int]) -> Box:
    """A box of a variable as one of the file's tensor, of which it has the dimensions `order`."""
    return box.permuted([order.index(dim) for dim in range(len(order))])


def exchanged(item: PlanItem) -> tuple[int, ...] | None:
    """For each dimension of the variable which of its one tensor's it is; None: it is more.

    A layout says so by what it does to the strides of a tensor that lies in memory with gaps: to
    copy it would close them.
    """
    if len(item.sources) != 1:
        return None
    shape = item.sources[0].shape
    if item.layout is IDENTITY:
        return tuple(range(len(shape)))
    strides = [2 * math.prod(size + 1 for size in shape[at + 1 :]) for at in range(len(shape))]
    moved = item.layout.to_torch(torch.empty_strided(shape, strides, device="meta"))[item.part]
    is_a_view = moved.storage_offset() == 0 and sorted(moved.stride()) == sorted(strides)
    order = tuple(strides.index(stride) for stride in moved.stride()) if is_a_view else ()
    return order if tuple(shape[dim] for dim in order) == tuple(moved.shape) else None


def _moves_rows_of_the_file(item: PlanItem) -> bool:
    """Whether what is remapped is dimension 0 of one tensor of the checkpoint, in its order.

    A layout says so by what it does to the strides of a tensor that has only one that is not zero.
    """
    if item.remapping is None or len(item.sources) != 1:
        return False
    shape = item.sources[0].shape
    if item.layout is IDENTITY or not shape:
        return item.axis == 0
    rows = torch.empty(shape[:1], device="meta")
    moved = item.layout.to_torch(rows.view(-1, *[1] * (len(shape) - 1)).expand(shape))[item.part]
    others = [at for at, size in enumerate(moved.shape) if at != item.axis and size > 1]
    return (
        moved.shape[item.axis] == shape[0]
        and moved.stride(item.axis) == 1
        and moved.storage_offset() == 0
        and len(others) > 0  # or a copy could not be told from a view
        and all(moved.stride(at) == 0 for at in others)
    )
