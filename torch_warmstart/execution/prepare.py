"""Preparing a plan: whatever can fail, before anything is written. It becomes a list of steps.

What will be read is fetched and verified, users' initialisers are run into tensors of their own,
slots that the optimizer does not have yet are made beside it, and variables that lie on the same
memory are found to agree. Neither the model nor the optimizer is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from torch_warmstart.computing import Box, as_the_caller, with_old_row, without_old_row
from torch_warmstart.display import Advance
from torch_warmstart.dtypes import as_bytes, take_rows
from torch_warmstart.errors import SettingsError
from torch_warmstart.execution.commit import (
    Copy,
    Filled,
    Filling,
    Gather,
    HandOver,
    InParts,
    LaterRows,
    Load,
    Patch,
    Prepared,
    Write,
    is_copied,
    leaves,
)
from torch_warmstart.execution.gathering import CHUNK_BYTES, Rows
from torch_warmstart.execution.initialising import Ask
from torch_warmstart.execution.reading import ALL, Reader, Share, fetch_and_verify
from torch_warmstart.execution.watching import Watch
from torch_warmstart.formats import Block
from torch_warmstart.model import Variable, extent_of, overlapping, share_elements
from torch_warmstart.model.sharding import Part, is_sharded, local_tensors, parts_of, written_to
from torch_warmstart.new_rows import Constant, Initialised, Mixed
from torch_warmstart.planning import (
    AxisChange,
    PlanItem,
    WarmStartPlan,
    filled_where_old,
    parts_read,
    seen_box,
)
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.execution.ranks import Exchange

_PER_ROW = 6 * 8  # bytes that a gather needs beside its chunks: indices of rows


def prepare(
    plan: WarmStartPlan,
    advance: Advance,
    ask: Ask,
    watch: Watch | None = None,
    *,
    share: Share = ALL,
    exchange: Exchange | None = None,
) -> Prepared:
    """Everything that a plan's steps need; raises what fails, and has changed nothing then.

    Args:
        plan: What to do.
        advance: Is told what has been verified.
        ask: Runs what an initialiser makes, by the name of it.
        watch: Gets what is read from memory.
        share: Which of the checksums this process checks.
        exchange: Gets what other ranks have in memory.
    """
    from torch_warmstart.slots import SlotTargets

    items = [item for item in plan.items if item.state != "kept"]
    used = parts_read(items)
    fetch_and_verify(plan, used, advance, share)
    slots = SlotTargets([i.variable for i in plan.items], [i.variable for i in items])
    targets = [slots[v] if v.slot else written_to(v.tensor) for v in (i.variable for i in items)]
    here = [local for target in targets for local in local_tensors(target)]
    reader = Reader(plan.checkpoint, here, watch, exchange)
    if reader.locked is not None:
        owners = [i.name for i, t in zip(items, targets, strict=True) for _ in local_tensors(t)]
        raise SettingsError(
            f"{owners[reader.locked]} lies in a file that is mapped to be read only "
            "(numpy's mmap_mode='r'): leave it out of vars_to_warm_start, or give the model a "
            "tensor of its own first (tensor.clone())."
        )
    filled = _fill_mixed(items, reader, ask)
    steps = [
        _step(item, target, reader, partial(_rows_made, item, ask, filled))
        for item, target in zip(items, targets, strict=True)
    ]
    if exchange is not None:
        exchange.settle()  # from here on what the steps hold has its values
    _check_shared([*leaves(steps)])
    whole: list[Write] = []
    others: list[Write] = []
    for step in steps:
        is_whole = is_copied(step) and step.items[0].variable.slot is None
        (whole if is_whole else others).append(step)
    loads = [Load(tuple(whole))] if whole else []
    return Prepared((*loads, *others, HandOver(slots)), filled)


def room_to_work(prepared: Prepared) -> torch.Tensor:
    """As much memory as the steps need for a while; given back before they are run.

    So where there is too little, that shows before anything is written. It is not touched, so it
    takes no memory but the promise of it.
    """
    gathers = [step for step in leaves(prepared.steps) if isinstance(step, Gather)]
    sizes = [0] + [
        3 * min(_moved_bytes(gather), CHUNK_BYTES) + _PER_ROW * len(gather.remapping)
        for gather in gathers
    ]
    return torch.empty(max(sizes), dtype=torch.uint8)


def _moved_bytes(gather: Gather) -> int:
    """Bytes of the new rows, which are first as wide as the old ones where other axes change."""
    shape = list(gather.target.shape)
    for axis, _ in gather.further:
        shape[axis] = max(shape[axis], gather.blocks[0][1].shape[axis])
    return math.prod(shape) * gather.target.element_size()


def _step(
    item: PlanItem, target: torch.Tensor, reader: Reader, make: Callable[[], RowsMade]
) -> Write:
    if is_sharded(target):
        return _step_in_parts(item, target, reader, make)
    if item.remapping is None:
        return Copy(reader.read(item), target, item.scale, (item,), reader.is_safe(item))
    read, whole = reader.read_blocks(item), Box.whole(target.shape)
    patches = tuple(_patch(patch, reader) for patch in item.patches)
    made = make().of_part(0)  # now that what is read is watched
    return _gather(item, target, read, box=whole, reader=reader, made=made, patches=patches)


def _gather(
    item: PlanItem,
    target: torch.Tensor,
    read: tuple[Sequence[Block], torch.Tensor],
    *,
    box: Box,
    reader: Reader,
    made: RowsMade,
    patches: tuple[Patch, ...],
) -> Gather:
    """The step for a box of a variable whose rows move; what they are taken from, and which."""
    blocks, rows = read
    further = (
        (change.axis, change.remapping.rows[box.along(change.axis)]) for change in item.further
    )
    return Gather(
        tuple(blocks),
        rows,
        target,
        item.axis,
        item.scale,
        _fillings(item, box, made),
        (item,),
        reader.is_safe(item),
        patches,
        tuple(further),
    )


def _patch(item: PlanItem, reader: Reader, box: Box | None = None) -> Patch:
    """Rows of an older checkpoint, or those of a part."""
    blocks, rows = reader.read_blocks(item) if box is None else reader.read_blocks_of_box(item, box)
    return Patch(tuple(blocks), rows, item.axis, item.scale, reader.is_safe(item))


def _step_in_parts(
    item: PlanItem, target: torch.Tensor, reader: Reader, make: Callable[[], RowsMade]
) -> InParts:
    """Of a sharded variable the parts that are here, each from what it alone needs."""
    parts, safe = parts_of(target), reader.is_safe(item)
    if item.remapping is None:
        copies = [
            Copy(reader.read_box(item, part.box), part.tensor, item.scale, (item,), safe)
            for part in parts
        ]
        return InParts(target, tuple(copies), (item,))
    made, gathers = make(), []
    for number, part in enumerate(parts):
        read = reader.read_blocks_of_box(item, part.box)
        patches = tuple(_patch(patch, reader, part.box) for patch in item.patches)
        of_part = made.of_part(number)
        gather = _gather(
            item, part.tensor, read, box=part.box, reader=reader, made=of_part, patches=patches
        )
        gathers.append(gather)
    return InParts(target, tuple(gathers), (item,))


# -- variables that share memory -------------------------------------------------------------------


def _check_shared(steps: Sequence[Write]) -> None:
    """Raises SettingsError where variables lie on the same memory and would differ.

    What each would become is made in memory of its own, which is laid out as theirs is.
    """
    for group in overlapping([step.target for step in steps]):
        together = [steps[at] for at in group]
        if _touch(together) and not _write_the_same(together):
            _check_agreement(together)


def _touch(steps: Sequence[Write]) -> bool:
    """Whether any two have a byte in common, rather than lying between each other."""
    targets = [step.target for step in steps]
    pairs = ((one, other) for at, one in enumerate(targets) for other in targets[:at])
    return any(share_elements(one, other) for one, other in pairs)


def _write_the_same(steps: Sequence[Write]) -> bool:
    """Whether all of them are one copy of one tensor into one place."""
    return len({_what_where(step) for step in steps}) == 1


def _what_where(step: Write) -> object:
    if not isinstance(step, Copy):
        return step
    both = (step.source, step.target)
    places = tuple((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in both)
    return (*places, step.scale)


def _check_agreement(steps: Sequence[Write]) -> None:
    start = min(step.target.data_ptr() for step in steps)
    stop = max(step.target.data_ptr() + _reach(step.target) for step in steps)
    memory = torch.zeros(stop - start, dtype=torch.uint8, device=steps[0].target.device)
    twins = [step.onto(_twin(step.target, memory, start)) for step in steps]
    for step, twin in zip(steps, twins, strict=True):
        twin.target.copy_(step.target)  # rows that stay
    wanted = []
    for twin in twins:
        twin.run()
        wanted.append(twin.target.clone())
    for step, twin, values in zip(steps, twins, wanted, strict=True):
        if not torch.equal(as_bytes(twin.target), as_bytes(values)):
            names = " and ".join(repr(s.items[0].name) for s in steps)
            keys = " and ".join(repr(key) for s in steps for key in s.items[0].keys)
            raise SettingsError(
                f"{names} share memory, but {keys} would give them different values, so that "
                f"{step.items[0].name!r} would not be what the plan says. Leave all but one of "
                "them out of vars_to_warm_start, or give the model tensors of their own."
            )


def _reach(tensor: torch.Tensor) -> int:
    """Bytes from its first to its last."""
    extent = extent_of(tensor)
    assert extent is not None  # it lies on others
    return extent.stop - extent.start


def _twin(tensor: torch.Tensor, memory: torch.Tensor, start: int) -> torch.Tensor:
    """A tensor that lies in `memory` as the given one does in what begins at `start`."""
    offset = tensor.data_ptr() - start
    size = _reach(tensor)
    if offset % tensor.element_size():
        raise SettingsError("Variables share memory with elements that do not lie on each other.")
    flat = memory[offset : offset + size].view(tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride())


# -- new rows --------------------------------------------------------------------------------------


@frozen(eq=False)
class RowsMade:
    """What initialisers have made for a variable, by the axis whose new rows it is."""

    fresh: Mapping[int, torch.Tensor]  # as large as the whole variable
    # Of old rows, for each part that is here.
    mixed: Mapping[int, tuple[torch.Tensor | LaterRows, ...]]

    def of_part(self, number: int) -> RowsMade:
        """For one of the parts."""
        return RowsMade(self.fresh, {axis: (rows[number],) for axis, rows in self.mixed.items()})


def _rows_made(item: PlanItem, ask: Ask, filled: Mapping[tuple[Variable, int], Filled]) -> RowsMade:
    fresh = {change.axis: _fresh(item.along(change), ask) for change in item.changes}
    mixed = {c.axis: filled.get((item.variable, c.axis)) for c in item.changes}
    return RowsMade(
        {axis: tensor for axis, tensor in fresh.items() if tensor is not None},
        {axis: made.rows for axis, made in mixed.items() if made is not None},
    )


def _fillings(item: PlanItem, box: Box, made: RowsMade) -> tuple[Filling, ...]:
    """What the plan says that a box's rows without an old row get; others stay.

    Args:
        item: What is planned.
        box: The part of the variable that is filled.
        made: What initialisers have made, of the rows that are mixed those of the box.
    """
    found = []
    rows = {c.axis: c.remapping.rows[box.along(c.axis)] for c in item.changes}
    for change in item.changes:
        if not isinstance(change.fill, Constant | Initialised | Mixed):
            continue
        at = (change.axis, without_old_row(rows[change.axis]))
        others = [
            (axis, with_old_row(rows[axis])) for axis in filled_where_old(item.changes, change)
        ]
        places = (at, *((axis, to) for axis, to in others if len(to) < box.sizes[axis]))
        found.append(Filling(places, _rows_of(item, change, places, box, made)))
    return tuple(found)


def _rows_of(
    item: PlanItem, change: AxisChange, places: Sequence[Rows], box: Box, made: RowsMade
) -> torch.Tensor | LaterRows | float:
    if isinstance(change.fill, Constant):
        return change.fill.value
    if isinstance(change.fill, Mixed):
        return made.mixed[change.axis][0]
    rows = box.of(made.fresh[change.axis])
    for axis, at in places:
        rows = take_rows(rows.movedim(axis, 0), at.to(rows.device)).movedim(0, axis)
    return rows.to(item.variable.device)


def fillings(item: PlanItem, ask: Ask) -> list[tuple[Part, Filling]]:
    """What new rows of a variable get, for each part of it that is here; `ask` is `prepare`'s."""
    if item.remapping is None:
        return []
    made = _rows_made(item, ask, {})
    parts = item.variable.parts
    return [(part, filling) for part in parts for filling in _fillings(item, part.box, made)]


def made_rows(prepared: Prepared) -> Iterator[tuple[PlanItem, Box, torch.Tensor]]:
    """What initialisers have made, of each part of a variable that is here."""
    for step in prepared.steps:
        gathers = [leaf for leaf in leaves([step]) if isinstance(leaf, Gather)]
        if gathers and isinstance(step, Gather | InParts):
            for part, gather in zip(parts_of(step.target), gathers, strict=True):
                for filling in gather.fillings:
                    if isinstance(filling.rows, torch.Tensor):
                        yield step.items[0], part.box, filling.rows


def _fill_mixed(
    items: Sequence[PlanItem], reader: Reader, ask: Ask
) -> dict[tuple[Variable, int], Filled]:
    """The rows that are made of old ones; what one table needs serves the next."""
    along = (item.along(change) for item in items for change in item.changes)
    mixed = [(item, item.fill) for item in along if isinstance(item.fill, Mixed)]
    # A bias tells least of which rows are trained: it follows its table.
    mixed.sort(key=lambda pair: pair[1].answers.open.role == "bias")
    if not mixed:
        return {}
    from torch_warmstart.execution.mixing import fill_mixed
    from torch_warmstart.new_rows import Mixtures, draw_seed

    mixtures = Mixtures()
    seeds: dict[int, int] = {}  # one of each generator, so that variables leave it where one would
    filled: dict[tuple[Variable, int], Filled] = {}
    for item, fill in mixed:
        drawn = id(fill.generator)
        if fill.answers.is_random and drawn not in seeds:
            seeds[drawn] = draw_seed(fill.generator)

        def guard(label: str, run: Callable[[], Any], name: str = item.name) -> Any:
            return ask(f"{name}: {label}", run)

        filled[item.variable, item.axis] = fill_mixed(
            item,
            fill,
            [
                seen_box(part.box, item.axis, item.changes)
                for part in parts_of(item.variable.tensor)
            ],
            reader,
            seed=seeds.get(drawn, 0),
            mixtures=mixtures,
            guard=guard,
        )
    return filled


def _fresh(item: PlanItem, ask: Ask) -> torch.Tensor | None:
    """What an initialiser makes of a whole tensor, so that fans are right; None: there is none."""
    fill = item.fill
    if not isinstance(fill, Initialised):
        return None
    from torch_warmstart.new_rows import empty_padding, initialised

    target = item.variable
    name = f"{item.name}: backup_initializer"

    def run() -> torch.Tensor:
        with as_the_caller():
            return initialised(
                name,
                fill.initializer,
                target.shape,
                target.tensor.dtype,
                device=target.device,
                generator=fill.generator,
            )

    fresh: torch.Tensor = ask(name, run)
    empty_padding(fresh, item.axis, fill.padding)
    return fresh
