"""Writing what has been prepared: a list of steps, each of which may be done again.

A step holds what it writes and where, and what it leaves does not depend on what was there before
but for rows that stay. Whole tensors go through `load_state_dict(strict=False)`, so that a module's
hooks run; remapped rows are gathered straight into the existing parameter. Parameters are filled in
place and never replaced. Slots that the optimizer does not have yet are handed to it at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from torch_warmstart.display import Advance
from torch_warmstart.errors import WarmStartError
from torch_warmstart.execution.gather import fill_rows, gather_blocks
from torch_warmstart.formats import Block
from torch_warmstart.planning import PlanItem
from torch_warmstart.slots import SlotTargets


class Step(Protocol):
    """Something to be written."""

    @property
    def items(self) -> tuple[PlanItem, ...]:
        """What of the plan is done once it has been written."""

    def run(self) -> None:
        """Writes it; a second time makes no difference."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a plan writes, in order."""

    steps: tuple[Step, ...]


def commit(prepared: Prepared, advance: Advance) -> None:
    """Runs the steps."""
    for step in prepared.steps:
        step.run()
        for item in step.items:
            verb = "Loaded" if isinstance(step, Load) else item.state.capitalize()
            advance(f"{verb} {item.name}", item.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """Whole tensors, as the model itself loads them."""

    model: torch.nn.Module
    tensors: Mapping[str, torch.Tensor]  # by their names in its state_dict
    versions: object  # of the modules that wrote them, as torch's `_metadata`
    items: tuple[PlanItem, ...]

    def run(self) -> None:
        """Raises WarmStartError if a hook turns one away."""
        state = _StateDict(self.tensors)
        state._metadata = self.versions
        result = self.model.load_state_dict(state, strict=False)
        refused = set(self.tensors).intersection(result.unexpected_keys)
        if refused:
            raise WarmStartError(
                f"A load_state_dict hook of the model turned away {sorted(refused)[0]!r}; load the "
                "module that it belongs to by itself."
            )


class _StateDict(dict[str, torch.Tensor]):
    """A dict that can carry torch's `_metadata`, as `state_dict()` makes them."""

    _metadata: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A whole slot."""

    source: torch.Tensor
    target: torch.Tensor
    scale: float
    items: tuple[PlanItem, ...]

    def run(self) -> None:
        """Copies and scales it."""
        self.target.copy_(self.source)
        _scale(self.target, self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """What goes into rows that have no old row."""

    at: torch.Tensor  # int64, their indices along the axis
    rows: torch.Tensor | float  # as many, or one number for all


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """Rows that move, and new ones."""

    blocks: tuple[Block, ...]
    remapping: torch.Tensor
    target: torch.Tensor
    axis: int
    scale: float  # not 1 for slots only, whose rows without an old one are filled
    filling: Filling | None
    items: tuple[PlanItem, ...]

    def run(self) -> None:
        """Gathers, scales and fills them."""
        gather_blocks(self.blocks, self.remapping, self.target, dim=self.axis)
        _scale(self.target, self.scale)
        if self.filling is not None:
            fill_rows(self.filling.rows, self.filling.at, self.target, self.axis)


@dataclass(frozen=True, slots=True, eq=False)
class HandOver:
    """The slots that were made beside the optimizer, given to it: the last step."""

    slots: SlotTargets
    items: tuple[PlanItem, ...] = ()

    def run(self) -> None:
        """Gives them to it."""
        self.slots.hand_over()


def _scale(target: torch.Tensor, scale: float) -> None:
    if scale != 1:
        target.mul_(scale)
