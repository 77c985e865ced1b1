"""A small model beside the real one, of nothing but the tensors that will take others' places.

The real ones, and the state that an optimizer keeps for them, are its checkpoint: it is
warm-started from them as any model is from a file, and nothing of the real model is touched.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.formats import open_checkpoint
from torch_warmstart.model import Variable, mode_of, stand_for, tensors_of
from torch_warmstart.planning import WarmStartPlan, make_plan
from torch_warmstart.planning.live import ChangedTable
from torch_warmstart.settings import AnyVocabInfo, WarmStartSettings
from torch_warmstart.slots import Optimizers, OptimizerTwin, Successor, make_twins
from torch_warmstart.values import frozen


@frozen(eq=False)
class Twin:
    """The new tensors of some tables, and the plan that fills them."""

    tables: tuple[ChangedTable, ...]
    new: tuple[torch.Tensor, ...]  # one for each table
    optimizers: tuple[OptimizerTwin, ...]
    plan: WarmStartPlan


def twin_of(
    model: torch.nn.Module,
    tables: Sequence[ChangedTable],
    optimizer: Optimizers | None = None,
    beginnings: Mapping[str, torch.Tensor] | None = None,
) -> Twin:
    """Makes and plans what the tables become; fills nothing yet.

    Args:
        model: The real one, or its copy, which has the tables.
        tables: What changes.
        optimizer: Whose state follows.
        beginnings: By name of a table: what its new rows are, instead of what its info says.

    Raises:
        PlanError: with all that keeps the tables from it.
        UnsupportedError: an optimizer keeps something that cannot follow.
    """
    new = tuple(_made_like(table) for table in tables)
    optimizers: tuple[OptimizerTwin, ...] = ()
    if optimizer is not None:
        both = zip(tables, new, strict=True)
        successors = [
            Successor(t.variable.name, t.variable.tensor, n, tuple(c.axis for c in t.changes))
            for t, n in both
        ]
        optimizers = make_twins(optimizer, successors, tensors_of(model))
    with_state = [twin for twin in optimizers if twin.has_state]
    root = _tree(tables, new)
    values = {table.variable.name: table.variable.tensor for table in tables}
    container = {"model": values, "optimizers": [twin.saved() for twin in with_state]}
    checkpoint = open_checkpoint(container, entry="model")
    checkpoint.url = f"<{type(model).__name__}>"
    infos = {t.variable.name: _infos(t, beginnings or {}) for t in tables}
    settings = WarmStartSettings(container, [".*"], infos)
    with_their_state = [twin.twin for twin in with_state] or None
    plan = make_plan(root, settings, checkpoint, with_their_state, purpose="vocabulary change")
    _check_states_follow(plan)
    return Twin(tuple(tables), new, optimizers, plan)


def _made_like(table: ChangedTable) -> torch.Tensor:
    """A tensor without values of the new shape, with what others have written on the old one."""
    old = table.variable.tensor
    with mode_of(old):
        made = torch.empty(table.shape, dtype=old.dtype, device=old.device)
        if isinstance(old, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=old.requires_grad)
        else:
            made.requires_grad_(old.requires_grad)
    for name, value in vars(old).items():
        with contextlib.suppress(AttributeError):
            setattr(made, name, value)
    return made


def _tree(tables: Sequence[ChangedTable], new: Sequence[torch.Tensor]) -> torch.nn.Module:
    """Bare modules with the new tensors at the names of the old ones."""
    root = torch.nn.Module()
    for table, tensor in zip(tables, new, strict=True):
        for owner in table.variable.owners:
            *path, leaf = owner.name.split(".")
            module = root
            for part in path:
                module = module._modules.setdefault(part, torch.nn.Module()) or module
            where = module._parameters if table.variable.kind == "parameter" else module._buffers
            where[leaf] = tensor  # type: ignore[assignment]
            stand_for(module, owner.module)
    return root


def _infos(table: ChangedTable, beginnings: Mapping[str, torch.Tensor]) -> list[AnyVocabInfo]:
    infos: list[AnyVocabInfo] = [change.info for change in table.changes]
    beginning = beginnings.get(table.variable.name)
    if beginning is None:
        return infos
    begin = functools.partial(_as_there, beginning)
    return [replace(info, backup_initializer=begin, generator=None) for info in infos]


def _as_there(beginning: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    return fresh.copy_(beginning)


def _check_states_follow(plan: WarmStartPlan) -> None:
    """All that an optimizer keeps for a table must have become something."""
    for slot in _left(plan):
        assert slot.slot is not None
        raise UnsupportedError(
            f"{slot.name} of {type(slot.slot.optimizer).__name__} cannot follow its parameter: "
            "make a new optimizer instead of passing this one."
        )


def _left(plan: WarmStartPlan) -> Iterator[Variable]:
    for item in plan.items:
        slot: Any = item.variable.slot
        if slot is not None and item.state == "kept" and slot.present:
            yield item.variable
