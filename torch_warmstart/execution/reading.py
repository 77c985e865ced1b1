"""Reading what a plan's items are made of: fetched together, verified, in torch's layout.

Nothing is copied that can be a view on top of the file. Where a remapping moves rows that are rows
of the file too, only those are fetched of a remote file, and a tensor that is kept in slices comes
as its blocks, without being put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from torch_warmstart.display import Advance
from torch_warmstart.execution.gathering import duplicate
from torch_warmstart.execution.watching import Watch
from torch_warmstart.formats import Block, Checkpoint
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.model import WrittenMemory
from torch_warmstart.planning import PlanItem, WarmStartPlan


def fetch_and_verify(plan: WarmStartPlan, items: Sequence[PlanItem], advance: Advance) -> None:
    """Fetches together what is needed whole, for itself or for its checksum, and checks that."""
    verify = plan.settings.verify
    by_rows = not (verify and plan.checkpoint.has_checksums)
    whole = [item for item in items if not (by_rows and _moves_rows_of_the_file(item))]
    plan.checkpoint.prefetch(list(dict.fromkeys(key for item in whole for key in item.keys)))
    for spec in {spec.key: spec for item in items for spec in item.sources}.values():
        if verify:
            plan.checkpoint.verify(spec.key)
        advance(f"{'Verified' if verify else 'Found'} {spec.key}", spec.nbytes)


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

    def read_blocks(self, item: PlanItem) -> Sequence[Block]:
        """The same in blocks along the item's axis, of which only the rows it needs are there."""
        if item.remapping is None or not _moves_rows_of_the_file(item):
            return [(0, self.read(item))]
        blocks = self._checkpoint.row_blocks(item.keys[0], item.remapping.rows)
        return [
            (first, item.layout.to_torch(self._apart(block))[item.part]) for first, block in blocks
        ]

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
