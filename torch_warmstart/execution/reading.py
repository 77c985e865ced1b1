"""Reading what a plan's items are made of: fetched together, verified, in torch's layout.

Nothing is copied that can be a view on top of the file. Where a remapping moves rows that are rows
of the file too, only those are fetched of a remote file, and a tensor that is kept in slices comes
as its blocks, without being put together. Of a variable that is sharded only what becomes this
process's boxes is read, if its layout does no more than exchange dimensions. What only other ranks
have in memory is asked of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from torch_warmstart.computing import Box
from torch_warmstart.display import Advance
from torch_warmstart.execution.gathering import duplicate
from torch_warmstart.execution.ranks import Want, is_here
from torch_warmstart.execution.watching import Watch
from torch_warmstart.formats import Block, Checkpoint
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.model import WrittenMemory
from torch_warmstart.model.sharding import is_sharded
from torch_warmstart.new_rows import Mixed
from torch_warmstart.planning import PlanItem, WarmStartPlan, parts_read
from torch_warmstart.storage import is_remote
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.execution.ranks import Exchange


@frozen
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
    """Reads items' tensors; those on top of what is going to be overwritten are copied.

    Where there is an exchange, tensors that are asked of other ranks are filled when that settles.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        targets: Iterable[torch.Tensor],
        watch: Watch | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._overwritten = WrittenMemory(targets)
        # The number of a target that cannot be written to.
        self.locked: int | None = self._overwritten.locked
        self._watch = watch
        self._exchange = exchange
        if watch is not None:
            watch.leave_out(self._overwritten.files)
        if exchange is not None and watch is not None:
            for _, piece in exchange.all_pieces():  # which others may ask for
                if not self._overwritten.holds(piece):
                    watch.add(piece)

    def read(self, item: PlanItem) -> torch.Tensor:
        """What an item's variable becomes, or the rows of it are taken from."""
        if self._is_gathered(item) and item.remapping is None:
            return self.read_box(item, Box.whole(item.variable.shape))
        tensors = [self._tensor(key) for key in item.keys]
        return item.layout.to_torch(*tensors)[item.part]

    def read_box(self, item: PlanItem, box: Box) -> torch.Tensor:
        """The part of it that a box of an item's variable becomes."""
        order = exchanged(item)
        if order is None:
            return self._box_of_whole(item, box)
        want = Want(item.keys[0], stored_box(box, order))
        if self._exchange is not None and self._exchange.lacks(want):
            return self._exchange.later(want).permute(order)
        return self._view_box(item.keys[0], box, order)

    def read_blocks_of_box(self, item: PlanItem, box: Box) -> tuple[Sequence[Block], torch.Tensor]:
        """In blocks along the item's axis what the rows of a box are taken from, and which."""
        assert item.remapping is not None
        order, everything = exchanged(item), old_box(item, box)
        rows = item.remapping.rows[box.along(item.axis)]
        if order is None:
            return [(0, self._box_of_whole(item, everything))], rows
        want = _want_of_rows(item, stored_box(everything, order), order, rows)
        if self._exchange is not None and self._exchange.lacks(want):
            return [(0, self._exchange.later(want).permute(order))], _places(rows, want)
        if order[item.axis]:
            return [(0, self._view_box(item.keys[0], everything, order))], rows
        blocks = self._checkpoint.box_blocks(item.keys[0], rows, want.box)
        return [(first, self._apart(block).permute(order)) for first, block in blocks], rows

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

    def read_blocks(self, item: PlanItem) -> tuple[Sequence[Block], torch.Tensor]:
        """The same of all of it, of which only the rows it needs are there, and which they are."""
        assert item.remapping is not None
        if self._is_gathered(item):
            return self.read_blocks_of_box(item, Box.whole(item.variable.shape))
        rows = item.remapping.rows
        if not _moves_rows_of_the_file(item):
            return [(0, self.read(item))], rows
        blocks = self._checkpoint.row_blocks(item.keys[0], rows)
        return [
            (first, item.layout.to_torch(self._apart(block))[item.part]) for first, block in blocks
        ], rows

    def read_rows(self, item: PlanItem, rows: torch.Tensor) -> tuple[Sequence[Block], torch.Tensor]:
        """The same of rows that are looked at now, before anything is written.

        Where `is_safe` says no, they may be looked at in a guarded way only.
        """
        layout, part = item.layout, item.part
        want = self._lacking(item, rows)
        if want is not None and self._exchange is not None:
            order = exchanged(item)
            assert order is not None
            return [(0, self._exchange.now(want).permute(order))], _places(rows, want)
        if not _moves_rows_of_the_file(item):
            tensors = [self._viewed(key) for key in item.keys]
            return [(0, layout.to_torch(*tensors)[part])], rows
        blocks = self._checkpoint.row_blocks(item.keys[0], rows)
        return [(first, layout.to_torch(block)[part]) for first, block in blocks], rows

    def _lacking(self, item: PlanItem, rows: torch.Tensor) -> Want | None:
        """What of some rows, of all columns, this rank has to ask others for; None: nothing."""
        order = exchanged(item)
        if self._exchange is None or order is None:
            return None
        want = _want_of_rows(item, Box.whole(item.sources[0].shape), order, rows)
        return want if self._exchange.lacks(want) else None

    def _is_gathered(self, item: PlanItem) -> bool:
        """Whether other ranks may have a part of what an item is made of, and are asked."""
        return self._exchange is not None and not self.has_whole(item)

    def has_whole(self, item: PlanItem) -> bool:
        """Whether all that an item is made of is on this rank."""
        return not any(self._checkpoint.is_in_parts(key) for key in item.keys)

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

    def is_overwritten(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor may change while the steps are done."""
        return self._overwritten.holds(tensor)

    def _tensor(self, key: str) -> torch.Tensor:
        tensor = self._viewed(key)
        return tensor if self._is_asked_for(key) else self._apart(tensor)

    def _viewed(self, key: str) -> torch.Tensor:
        if self._exchange is not None and self._is_asked_for(key):
            return self._exchange.now(self._whole(key))
        tensor = self._checkpoint.view_tensor(key)
        assert isinstance(tensor, torch.Tensor)
        return tensor

    def _is_asked_for(self, key: str) -> bool:
        return self._exchange is not None and self._exchange.lacks(self._whole(key))

    def _whole(self, key: str) -> Want:
        return Want(key, Box.whole(self._checkpoint.spec(key).shape))

    def _apart(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.is_overwritten(tensor):
            return duplicate(tensor)  # warm-started from itself: read before it is overwritten
        if self._watch is not None:
            self._watch.add(tensor)
        return tensor


def lacks_something(plan: WarmStartPlan) -> bool:
    """Whether this process needs something of a tensor in memory of which it has only a part."""
    return any(map(partial(_lacks, plan.checkpoint), parts_read(plan.items)))


def _lacks(checkpoint: Checkpoint, item: PlanItem) -> bool:
    having = {key: checkpoint.pieces(key) for key in item.keys}
    pieces = {key: of_key for key, of_key in having.items() if of_key is not None}
    if not pieces:
        return False
    order = exchanged(item)
    if order is None or any(isinstance(fill, Mixed) for fill in item.fills):
        wholes = [Want(spec.key, Box.whole(spec.shape)) for spec in item.sources]
        return any(not is_here(pieces[w.key], w) for w in wholes if w.key in pieces)
    boxes = [part.box for part in item.variable.parts]
    return any(not is_here(pieces[item.keys[0]], _want(item, box, order)) for box in boxes)


def _want(item: PlanItem, box: Box, order: Sequence[int]) -> Want:
    """What of its one tensor a box of an item's variable needs."""
    if item.remapping is None:
        return Want(item.keys[0], stored_box(box, order))
    rows = item.remapping.rows[box.along(item.axis)]
    return _want_of_rows(item, stored_box(old_box(item, box), order), order, rows)


def _want_of_rows(item: PlanItem, stored: Box, order: Sequence[int], rows: torch.Tensor) -> Want:
    """Rows along the item's axis, of a box of the file's tensor that has all of that axis."""
    needed = torch.unique(rows[rows >= 0]).cpu()
    return Want(item.keys[0], stored, needed, order[item.axis])


def _places(rows: torch.Tensor, want: Want) -> torch.Tensor:
    """Where rows are among those that are wanted; -1 stays."""
    assert want.rows is not None
    places = torch.searchsorted(want.rows, rows.cpu().clamp(min=0)).to(rows.device)
    return torch.where(rows >= 0, places, -1)


def old_box(item: PlanItem, box: Box) -> Box:
    """Of the old tensor, in torch's layout, what the rows of a box may be taken from."""
    for change in item.changes:
        box = box.spread(change.axis, change.old_size)
    return box


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
