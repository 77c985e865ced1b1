"""Carrying out a plan: read, change the layout, gather rows or load.

All or nothing. Whatever can fail comes first: the model is compared with the plan, what will be
read is verified, and users' initialisers are run; only then is anything written. Whole tensors go
through `load_state_dict(strict=False)`, so that a module's hooks run; remapped rows are gathered
straight into the existing parameter. Parameters are filled in place and never replaced.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.bits import as_bits, take_rows
from torch_warmstart.errors import SettingsError, WarmStartError
from torch_warmstart.gather import gather_rows
from torch_warmstart.plan import PlanItem, WarmStartPlan
from torch_warmstart.progress import Advance, progress_bar
from torch_warmstart.report import WarmStartReport, make_report
from torch_warmstart.variables import model_variables


@dataclass(frozen=True, slots=True, eq=False)
class _Fill:
    """What goes into the rows of a variable that have no old row."""

    at: torch.Tensor  # int64, their indices along the axis
    rows: torch.Tensor | None  # None: zeros


def execute(plan: WarmStartPlan, *, progress: bool | None = None) -> WarmStartReport:
    """Carries out a plan; raises before anything is changed, or does all of it."""
    started = time.perf_counter()
    items = [item for item in plan.items if item.state != "kept"]
    _check_unchanged(plan)
    total = 2 * sum(item.source.nbytes for item in items if item.source)
    with progress_bar(total, show=progress) as advance, torch.no_grad():
        _verify(plan, items, advance)
        remapped = [item for item in items if item.state == "remapped"]
        sources = [_source_tensor(plan, item, items) for item in remapped]
        fills = [_make_fill(item) for item in remapped]
        _load_whole(plan, [item for item in items if item.state != "remapped"], items, advance)
        for item, source, fill in zip(remapped, sources, fills, strict=True):
            _remap(item, source, fill)
            advance(f"Remapped {item.name}", item.source.nbytes if item.source else 0)
    return make_report(plan, seconds=plan.seconds + time.perf_counter() - started)


def _check_unchanged(plan: WarmStartPlan) -> None:
    """The model must still hold the very tensors that were planned for."""
    now = [(v.name, id(v.tensor), v.shape) for v in model_variables(plan.model)]
    then = [(i.name, id(i.variable.tensor), i.variable.shape) for i in plan.items]
    if now != then:
        changed = next((a[0] for a, b in zip(then, now, strict=False) if a != b), "its variables")
        raise SettingsError(
            f"The model has changed since the plan was made ({changed} is another tensor now): "
            "make a new plan."
        )


def _verify(plan: WarmStartPlan, items: Sequence[PlanItem], advance: Advance) -> None:
    plan.checkpoint.prefetch([item.source.key for item in items if item.source])
    for item in items:
        assert item.source is not None
        if plan.settings.verify:
            plan.checkpoint.verify(item.source.key)
        advance(f"Verified {item.source.key}", item.source.nbytes)


def _source_tensor(plan: WarmStartPlan, item: PlanItem, items: Sequence[PlanItem]) -> torch.Tensor:
    """The old tensor in torch's layout: a view on top of the file where that is possible."""
    assert item.source is not None
    tensor = plan.checkpoint.get_tensor(item.source.key)
    assert isinstance(tensor, torch.Tensor)
    storages = {i.variable.tensor.untyped_storage().data_ptr() for i in items}
    if tensor.untyped_storage().data_ptr() in storages:
        tensor = tensor.clone()  # warm-started from itself: read before it is overwritten
    return item.layout.to_torch(tensor)


def _load_whole(
    plan: WarmStartPlan, whole: Sequence[PlanItem], items: Sequence[PlanItem], advance: Advance
) -> None:
    if not whole:
        return
    state = _StateDict()
    for item in whole:
        state[item.variable.owners[0].state_dict_name] = _source_tensor(plan, item, items)
    state._metadata = plan.checkpoint.metadata() or _versions(plan.model)
    wanted = set(state)
    result = plan.model.load_state_dict(state, strict=False)
    refused = wanted.intersection(result.unexpected_keys)
    if refused:
        raise WarmStartError(
            f"A load_state_dict hook of the model turned away {sorted(refused)[0]!r}; load the "
            "module that it belongs to by itself."
        )
    for item in whole:
        advance(f"Loaded {item.name}", item.source.nbytes if item.source else 0)


def _versions(model: torch.nn.Module) -> dict[str, dict[str, int]]:
    """The `_metadata` of a state_dict that this model would write, without writing one.

    Modules upgrade what they load from an older version of themselves; ours is up to date.
    """
    modules = model.named_modules(remove_duplicate=False)
    return {name: {"version": module._version} for name, module in modules}


class _StateDict(dict[str, torch.Tensor]):
    """A dict that can carry torch's `_metadata`, as `state_dict()` makes them."""

    _metadata: object = None


def _make_fill(item: PlanItem) -> _Fill | None:
    """Runs the user's initialiser, on a tensor of the full shape, and keeps the rows needed."""
    assert item.remapping is not None
    assert item.vocab is not None
    if item.keeps_new_rows or not item.remapping.num_without_old_row:
        return None
    at = (item.remapping.rows < 0).nonzero().flatten()
    if item.vocab.backup_initializer is None:
        return _Fill(at, None)
    fresh = _initialised(item)
    rows = take_rows(fresh.movedim(item.axis, 0), at.to(fresh.device))
    return _Fill(at, rows.movedim(0, item.axis).to(item.variable.tensor.device))


def _initialised(item: PlanItem) -> torch.Tensor:
    assert item.vocab is not None
    target, initializer, generator = (
        item.variable.tensor,
        item.vocab.backup_initializer,
        item.vocab.generator,
    )
    assert callable(initializer)
    device = target.device if generator is None else generator.device
    fresh = torch.zeros(target.shape, dtype=target.dtype, device=device)
    returned = initializer(fresh) if generator is None else initializer(fresh, generator=generator)
    if returned is None:
        return fresh
    if not isinstance(returned, torch.Tensor) or returned.shape != target.shape:
        found = f"{list(returned.shape)}" if isinstance(returned, torch.Tensor) else repr(returned)
        raise SettingsError(
            f"{item.name}: backup_initializer must fill the tensor it gets or return one of its "
            f"shape, {list(target.shape)}; it returned {found}."
        )
    return returned.detach().to(target.dtype)


def _remap(item: PlanItem, source: torch.Tensor, fill: _Fill | None) -> None:
    assert item.remapping is not None
    target = item.variable.tensor.detach()
    gather_rows(source, item.remapping.rows, target, dim=item.axis)
    if fill is None:
        return
    if fill.rows is None:
        as_bits(target).index_fill_(item.axis, fill.at, 0)  # zero is all bits zero in every dtype
    else:
        as_bits(target).index_copy_(item.axis, fill.at, as_bits(fill.rows))
