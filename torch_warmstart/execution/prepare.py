"""Preparing a plan: whatever can fail, before anything is written. It becomes a list of steps.

What will be read is fetched and verified, users' initialisers are run into tensors of their own,
and slots that the optimizer does not have yet are made beside it. Neither the model nor the
optimizer is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torch_warmstart.display import Advance
from torch_warmstart.dtypes import take_rows
from torch_warmstart.execution.commit import Copy, Filling, Gather, HandOver, Load, Prepared, Step
from torch_warmstart.execution.reading import Reader, fetch_and_verify
from torch_warmstart.new_rows import Constant, Initialised, initialised
from torch_warmstart.planning import PlanItem, WarmStartPlan
from torch_warmstart.slots import SlotTargets


def prepare(plan: WarmStartPlan, advance: Advance) -> Prepared:
    """Everything that a plan's steps need; raises what fails, and has changed nothing then."""
    items = [item for item in plan.items if item.state != "kept"]
    fetch_and_verify(plan, items, advance)
    slots = SlotTargets([i.variable for i in plan.items], [i.variable for i in items])
    targets = [slots[i.variable] if i.variable.slot else i.variable.tensor.detach() for i in items]
    reader = Reader(plan.checkpoint, targets)
    whole = [item for item in items if _is_loaded(item)]
    steps = [
        _step(item, target, reader)
        for item, target in zip(items, targets, strict=True)
        if not _is_loaded(item)
    ]
    loads = [_load(plan, whole, reader)] if whole else []
    return Prepared((*loads, *steps, HandOver(slots)))


def _is_loaded(item: PlanItem) -> bool:
    """Whether a whole tensor goes through `load_state_dict`, so that its module's hooks run."""
    return item.state != "remapped" and item.variable.slot is None


def _load(plan: WarmStartPlan, whole: Sequence[PlanItem], reader: Reader) -> Load:
    tensors = {item.variable.owners[0].state_dict_name: reader.read(item) for item in whole}
    versions = plan.checkpoint.metadata() or _versions(plan.model)
    return Load(plan.model, tensors, versions, tuple(whole))


def _versions(model: torch.nn.Module) -> dict[str, dict[str, int]]:
    """The `_metadata` of a state_dict that this model would write, without writing one.

    Modules upgrade what they load from an older version of themselves; ours is up to date.
    """
    modules = model.named_modules(remove_duplicate=False)
    return {name: {"version": module._version} for name, module in modules}


def _step(item: PlanItem, target: torch.Tensor, reader: Reader) -> Step:
    if item.remapping is None:
        return Copy(reader.read(item), target, item.scale, (item,))
    blocks, filling = tuple(reader.read_blocks(item)), _filling(item, item.remapping.rows)
    return Gather(blocks, item.remapping.rows, target, item.axis, item.scale, filling, (item,))


def _filling(item: PlanItem, remapping: torch.Tensor) -> Filling | None:
    """What the plan says that rows without an old row get; None: nothing, they stay."""
    if not isinstance(item.fill, Constant | Initialised):
        return None
    at = (remapping < 0).nonzero().flatten()
    if isinstance(item.fill, Constant):
        return Filling(at, item.fill.value)
    return Filling(at, _initialised_rows(item, item.fill, at))


def _initialised_rows(item: PlanItem, fill: Initialised, at: torch.Tensor) -> torch.Tensor:
    target = item.variable
    fresh = initialised(
        f"{item.name}: backup_initializer",
        fill.initializer,
        target.shape,
        target.tensor.dtype,
        device=target.device,
        generator=fill.generator,
    )
    rows = take_rows(fresh.movedim(item.axis, 0), at.to(fresh.device))
    return rows.movedim(0, item.axis).to(target.device)
