"""What a commit would read, in memory of its own before it begins: no source can stop it then.

Of a tensor whose rows move, only the rows that are needed are kept, on the CPU as they are in the
file. What that takes is known before any of it is read, and a limit refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from torch_warmstart.errors import SettingsError, check_choice, check_number_of_bytes
from torch_warmstart.execution.commit import (
    Copy,
    Gather,
    InParts,
    Load,
    Patch,
    Prepared,
    Step,
    leaves,
)
from torch_warmstart.execution.gathering import gather_with
from torch_warmstart.new_rows import Initialised
from torch_warmstart.planning import WarmStartPlan
from torch_warmstart.values import Staging, frozen

_Rows = TypeVar("_Rows", Gather, Patch)


@frozen
class Memory:
    """What carrying out a plan may keep in memory, and what it shall."""

    staging: Staging = "none"  # "memory": all that the commit reads
    limit: int | None = None  # bytes

    def __post_init__(self) -> None:
        check_choice("staging", self.staging, Staging)
        if self.limit is not None:
            check_number_of_bytes("memory_limit", self.limit)

    def check_plan(self, plan: WarmStartPlan) -> None:
        """Raises SettingsError where an initialiser's whole tensor would be above the limit."""
        for item in plan.items:
            if any(isinstance(fill, Initialised) for fill in item.fills):
                size = math.prod(item.variable.shape) * item.variable.tensor.dtype.itemsize
                what = f"{item.name}: backup_initializer gets the whole shape, which"
                self._check(size, what, "Take one of tws.init, which makes the new rows only, or")

    def check_work(self, nbytes: int) -> None:
        """Raises SettingsError where moving rows takes more than the limit."""
        self._check(nbytes, "To move rows", "To have it done,")

    def check_sent(self, nbytes: int) -> None:
        """Raises SettingsError where to keep what other ranks send takes more than the limit."""
        self._check(nbytes, "To keep what other ranks have in memory", "To have it done,")

    def check_while(self, check: Callable[[], None]) -> Callable[[], None]:
        """What is to be looked at during the commit: nothing, where no source is read by then."""
        return check if self.staging == "none" else lambda: None

    def staged(self, prepared: Prepared) -> Prepared:
        """The steps as they are; with "memory", such as read only what is theirs alone.

        Raises SettingsError if that would be more than the limit; nothing has been read then.
        """
        if self.staging == "none":
            return prepared
        wanted = sum(map(_staged_bytes, leaves(prepared.steps)))
        self._check(wanted, "staging='memory'", "Do without it, or")
        return Prepared(tuple(map(_staged, prepared.steps)), prepared.filled)

    def _check(self, nbytes: int, what: str, instead: str) -> None:
        if self.limit is not None and nbytes > self.limit:
            raise SettingsError(
                f"{what} takes {nbytes:,} bytes, and memory_limit is {self.limit:,}. "
                f"{instead} raise memory_limit."
            )


def _staged(step: Step) -> Step:
    if isinstance(step, Load):
        return Load(tuple(map(_staged, step.copies)))
    if isinstance(step, InParts):
        return replace(step, writes=tuple(map(_staged_write, step.writes)))
    return _staged_write(step) if isinstance(step, Copy | Gather) else step


def _staged_write(step: Copy | Gather) -> Copy | Gather:
    if isinstance(step, Copy):
        return replace(step, source=step.staged(), safe=True)
    fillings = tuple(filling.staged() for filling in step.fillings)
    patches = tuple(map(_staged_rows, step.patches))
    return replace(_staged_rows(step), fillings=fillings, patches=patches)


def _staged_rows(step: _Rows) -> _Rows:
    """Takes the rows from a table that has no others."""
    needed, block = _needed(step.remapping), step.blocks[0][1]
    shape = [len(needed) if dim == step.axis else size for dim, size in enumerate(block.shape)]
    table = torch.empty(shape, dtype=block.dtype, device=block.device)
    if len(needed):
        gather = gather_with(is_safe=step.safe)
        gather(step.blocks, needed.to(block.device), table, step.axis)
    place = torch.searchsorted(needed, step.remapping.clamp(min=0))
    remapping = torch.where(step.remapping >= 0, place, -1)
    return replace(step, blocks=((0, table),), remapping=remapping, safe=True)


def _needed(remapping: torch.Tensor) -> torch.Tensor:
    """The old rows that are taken, each once, ascending."""
    needed: torch.Tensor = torch.unique(remapping[remapping >= 0])
    return needed


def _staged_bytes(step: Copy | Gather) -> int:
    if isinstance(step, Copy):
        return step.source.nbytes
    made = sum(filling.later_bytes for filling in step.fillings)
    return made + _bytes_of_rows(step) + sum(map(_bytes_of_rows, step.patches))


def _bytes_of_rows(step: Gather | Patch) -> int:
    block = step.blocks[0][1]
    others = (size for dim, size in enumerate(block.shape) if dim != step.axis)
    return len(_needed(step.remapping)) * math.prod(others) * block.element_size()
