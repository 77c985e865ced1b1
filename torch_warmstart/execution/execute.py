"""Carrying out a plan: read, change the layout, gather rows or load.

All or nothing. Whatever can fail comes first: the model is compared with the plan, what will be
read is verified, and users' initialisers are run; only then is anything written. Whole tensors go
through `load_state_dict(strict=False)`, so that a module's hooks run; remapped rows are gathered
straight into the existing parameter. Parameters are filled in place and never replaced. Slots that
the optimizer does not have yet are made beside it and given to it at the end.

Where a remapping moves rows that are rows of the file too, only those are fetched of a remote file,
and a tensor that is kept in slices is gathered from them without being put together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.display import Advance, progress_bar
from torch_warmstart.dtypes import aligned, as_bytes, is_aligned, take_rows
from torch_warmstart.errors import SettingsError, WarmStartError
from torch_warmstart.execution.gather import fill_rows, gather_blocks
from torch_warmstart.execution.report import WarmStartReport, make_report
from torch_warmstart.formats import Block
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.model import model_variables
from torch_warmstart.new_rows import Constant, Initialised, initialised
from torch_warmstart.planning import PlanItem, WarmStartPlan
from torch_warmstart.slots import SlotTargets, is_as_planned


@dataclass(frozen=True, slots=True, eq=False)
class _Fill:
    """What goes into the rows of a variable that have no old row."""

    at: torch.Tensor  # int64, their indices along the axis
    rows: torch.Tensor | None = None  # None: `value` everywhere
    value: float = 0.0


def execute(plan: WarmStartPlan, *, progress: bool | None = None) -> WarmStartReport:
    """Carries out a plan; raises before anything is changed, or does all of it."""
    started = time.perf_counter()
    items = [item for item in plan.items if item.state != "kept"]
    _check_unchanged(plan)
    total = 2 * sum(item.nbytes for item in items)
    with progress_bar(total, show=progress) as advance, torch.no_grad():
        _verify(plan, items, advance)
        _fill(plan, items, advance)
    return make_report(plan, seconds=plan.seconds + time.perf_counter() - started)


def _fill(plan: WarmStartPlan, items: Sequence[PlanItem], advance: Advance) -> None:
    slots = SlotTargets([i.variable for i in plan.items], [i.variable for i in items])
    targets = [slots[i.variable] if i.variable.slot else i.variable.tensor.detach() for i in items]
    target_of = {id(i): target for i, target in zip(items, targets, strict=True)}
    reader = _Reader(plan, targets)
    whole = [i for i in items if i.state != "remapped" and i.variable.slot is None]
    others = [i for i in items if i.state == "remapped" or i.variable.slot is not None]
    sources = [reader.read_blocks(item) for item in others]
    fills = [_make_fill(item) for item in others]
    _load_whole(plan, whole, reader, advance)
    for item, blocks, fill in zip(others, sources, fills, strict=True):
        target = target_of[id(item)]
        if item.remapping is not None:
            _remap(item, blocks, fill, target)
        else:
            target.copy_(blocks[0][1])
            if item.scale != 1:
                target.mul_(item.scale)
        advance(f"{item.state.capitalize()} {item.name}", item.nbytes)
    slots.hand_over()


def _check_unchanged(plan: WarmStartPlan) -> None:
    """The model must still hold the very tensors that were planned for, and the optimizer too."""
    planned = [item.variable for item in plan.items]
    now = [(v.name, id(v.tensor), v.shape) for v in model_variables(plan.model)]
    then = [(v.name, id(v.tensor), v.shape) for v in planned if v.slot is None]
    if now != then:
        changed = next((a[0] for a, b in zip(then, now, strict=False) if a != b), "its variables")
        raise SettingsError(
            f"The model has changed since the plan was made ({changed} is another tensor now): "
            "make a new plan."
        )
    for variable in planned:
        if variable.slot is not None and not is_as_planned(variable):
            raise SettingsError(
                f"The optimizer has changed since the plan was made ({variable.name} is another "
                "tensor now): make a new plan."
            )


def _verify(plan: WarmStartPlan, items: Sequence[PlanItem], advance: Advance) -> None:
    """Fetches together what is needed whole, for itself or for its checksum, and checks that."""
    verify = plan.settings.verify
    by_rows = not (verify and plan.checkpoint.has_checksums)
    whole = [item for item in items if not (by_rows and _moves_rows_of_the_file(item))]
    plan.checkpoint.prefetch(list(dict.fromkeys(key for item in whole for key in item.keys)))
    for spec in {spec.key: spec for item in items for spec in item.sources}.values():
        if verify:
            plan.checkpoint.verify(spec.key)
        advance(f"{'Verified' if verify else 'Found'} {spec.key}", spec.nbytes)


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


class _Reader:
    """Reads what items are made of, in torch's layout: views on top of the file where possible."""

    def __init__(self, plan: WarmStartPlan, targets: Sequence[torch.Tensor]) -> None:
        self._checkpoint = plan.checkpoint
        # Of what is going to be overwritten.
        self._storages = {target.untyped_storage().data_ptr() for target in targets}

    def read(self, item: PlanItem) -> torch.Tensor:
        tensors = [self._tensor(key) for key in item.keys]
        return item.layout.to_torch(*tensors)[item.part]

    def read_blocks(self, item: PlanItem) -> Sequence[Block]:
        """The same in blocks along the item's axis, of which only the rows it needs are there."""
        if item.remapping is None or not _moves_rows_of_the_file(item):
            return [(0, self.read(item))]
        blocks = self._checkpoint.row_blocks(item.keys[0], item.remapping.rows)
        return [(first, self._in_torch(block, item)) for first, block in blocks]

    def _in_torch(self, block: torch.Tensor, item: PlanItem) -> torch.Tensor:
        if item.layout is not IDENTITY or block.dtype != item.variable.tensor.dtype:
            block = aligned(block)  # else its bytes are moved
        return item.layout.to_torch(self._apart(block))[item.part]

    def _tensor(self, key: str) -> torch.Tensor:
        tensor = self._checkpoint.get_tensor(key)
        assert isinstance(tensor, torch.Tensor)
        return self._apart(tensor)

    def _apart(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() in self._storages:
            return tensor.clone()  # warm-started from itself: read before it is overwritten
        return tensor


def _load_whole(
    plan: WarmStartPlan, whole: Sequence[PlanItem], reader: _Reader, advance: Advance
) -> None:
    if not whole:
        return
    state = _StateDict()
    for item in whole:
        state[item.variable.owners[0].state_dict_name] = reader.read(item)
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
        advance(f"Loaded {item.name}", item.nbytes)


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
    """What the plan says that rows without an old row get; None: nothing, they stay."""
    if item.remapping is None or not isinstance(item.fill, Constant | Initialised):
        return None
    at = (item.remapping.rows < 0).nonzero().flatten()
    if isinstance(item.fill, Constant):
        return _Fill(at, value=item.fill.value)
    fresh = _initialised(item, item.fill)
    rows = take_rows(fresh.movedim(item.axis, 0), at.to(fresh.device))
    return _Fill(at, rows=rows.movedim(0, item.axis).to(item.variable.device))


def _initialised(item: PlanItem, fill: Initialised) -> torch.Tensor:
    target = item.variable
    return initialised(
        f"{item.name}: backup_initializer",
        fill.initializer,
        target.shape,
        target.tensor.dtype,
        device=target.device,
        generator=fill.generator,
    )


def _remap(
    item: PlanItem, blocks: Sequence[Block], fill: _Fill | None, target: torch.Tensor
) -> None:
    assert item.remapping is not None
    out = target
    if not all(is_aligned(block) for _, block in blocks):
        blocks, out = [(first, as_bytes(block)) for first, block in blocks], as_bytes(target)
    gather_blocks(blocks, item.remapping.rows, out, dim=item.axis)
    if item.scale != 1:
        target.mul_(item.scale)
    if fill is None:
        return
    fill_rows(fill.value if fill.rows is None else fill.rows, fill.at, target, item.axis)
