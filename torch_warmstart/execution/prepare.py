"""Preparing a plan: whatever can fail, before anything is written. It becomes a list of steps.

What will be read is fetched and verified, users' initialisers are run into tensors of their own,
slots that the optimizer does not have yet are made beside it, and variables that lie on the same
memory are found to agree. Neither the model nor the optimizer is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_warmstart.boxes import Box
from torch_warmstart.display import Advance
from torch_warmstart.dtypes import as_bytes, take_rows
from torch_warmstart.errors import CallbackError, SettingsError, WarmStartError
from torch_warmstart.execution.commit import (
    Copy,
    Filled,
    Filling,
    Gather,
    HandOver,
    InParts,
    Load,
    Patch,
    Prepared,
    Write,
    leaves,
)
from torch_warmstart.execution.gathering import CHUNK_BYTES
from torch_warmstart.execution.journal import Journal
from torch_warmstart.execution.reading import ALL, Reader, Share, fetch_and_verify
from torch_warmstart.execution.watching import Watch
from torch_warmstart.model import (
    Part,
    Variable,
    is_sharded,
    local_tensors,
    overlapping,
    parts_of,
    share_elements,
)
from torch_warmstart.new_rows import (
    Constant,
    Initialised,
    Mixed,
    Mixtures,
    draw_seed,
    initialised,
)
from torch_warmstart.planning import PlanItem, WarmStartPlan
from torch_warmstart.slots import SlotTargets

_PER_ROW = 6 * 8  # bytes that a gather needs beside its chunks: indices of rows


def prepare(
    plan: WarmStartPlan,
    advance: Advance,
    journal: Journal | None = None,
    watch: Watch | None = None,
    share: Share = ALL,
) -> Prepared:
    """Everything that a plan's steps need; raises what fails, and has changed nothing then.

    Args:
        plan: What to do.
        advance: Is told what has been verified.
        journal: Watches what initialisers write to.
        watch: Gets what is read from memory.
        share: Which of the checksums this process checks.
    """
    items = [item for item in plan.items if item.state != "kept"]
    used = [one for item in items for one in (item, *item.patches)]
    fetch_and_verify(plan, used, advance, share)
    slots = SlotTargets([i.variable for i in plan.items], [i.variable for i in items])
    targets = [slots[i.variable] if i.variable.slot else i.variable.tensor.detach() for i in items]
    written = [local for target in targets for local in local_tensors(target)]
    reader = Reader(plan.checkpoint, written, watch)
    filled = _fill_mixed(items, reader, journal)
    steps = [
        _step(item, target, reader, journal, filled.get(item.variable))
        for item, target in zip(items, targets, strict=True)
    ]
    _check_shared([*leaves(steps)])
    whole = tuple(step for step in steps if _is_whole(step))
    loads = [Load(whole)] if whole else []
    others = (step for step in steps if not _is_whole(step))
    return Prepared((*loads, *others, HandOver(slots)), filled)


def _is_whole(step: Write) -> bool:
    is_copied = all(isinstance(leaf, Copy) for leaf in leaves([step]))
    return is_copied and step.items[0].variable.slot is None


def room_to_work(prepared: Prepared) -> torch.Tensor:
    """As much memory as the steps need for a while; given back before they are run.

    So where there is too little, that shows before anything is written. It is not touched, so it
    takes no memory but the promise of it.
    """
    gathers = [step for step in leaves(prepared.steps) if isinstance(step, Gather)]
    sizes = [0] + [
        3 * min(gather.target.nbytes, CHUNK_BYTES) + _PER_ROW * len(gather.remapping)
        for gather in gathers
    ]
    return torch.empty(max(sizes), dtype=torch.uint8)


def _step(
    item: PlanItem,
    target: torch.Tensor,
    reader: Reader,
    journal: Journal | None,
    filled: Filled | None,
) -> Write:
    if is_sharded(target):
        return _step_in_parts(item, target, reader, journal, filled)
    if item.remapping is None:
        return Copy(reader.read(item), target, item.scale, (item,), reader.is_safe(item))
    rows, axis = item.remapping.rows, item.axis
    blocks = tuple(reader.read_blocks(item))
    safe, whole = reader.is_safe(item), Box.whole(target.shape)
    made = filled.rows[0] if filled is not None else None
    filling = _filling(item, rows, whole, _fresh(item, journal), made)
    patches = tuple(_patch(patch, reader) for patch in item.patches)
    return Gather(blocks, rows, target, axis, item.scale, filling, (item,), safe, patches)


def _patch(item: PlanItem, reader: Reader, box: Box | None = None) -> Patch:
    """Rows of an older checkpoint, or those of a part."""
    assert item.remapping is not None
    rows = item.remapping.rows
    if box is None:
        blocks = tuple(reader.read_blocks(item))
    else:
        blocks, rows = tuple(reader.read_blocks_of_box(item, box)), rows[box.along(item.axis)]
    return Patch(blocks, rows, item.axis, item.scale, reader.is_safe(item))


def _step_in_parts(
    item: PlanItem,
    target: torch.Tensor,
    reader: Reader,
    journal: Journal | None,
    filled: Filled | None,
) -> InParts:
    """Of a sharded variable the parts that are here, each from what it alone needs."""
    parts, safe = parts_of(target), reader.is_safe(item)
    if item.remapping is None:
        copies = [
            Copy(reader.read_box(item, part.box), part.tensor, item.scale, (item,), safe)
            for part in parts
        ]
        return InParts(target, tuple(copies), (item,))
    fresh = _fresh(item, journal)
    gathers = []
    for number, part in enumerate(parts):
        blocks = tuple(reader.read_blocks_of_box(item, part.box))
        rows = item.remapping.rows[part.box.along(item.axis)]
        made = filled.rows[number] if filled is not None else None
        filling = _filling(item, rows, part.box, fresh, made)
        patches = tuple(_patch(patch, reader, part.box) for patch in item.patches)
        to = (part.tensor, item.axis, item.scale, filling, (item,), safe, patches)
        gathers.append(Gather(blocks, rows, *to))
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
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * tensor.element_size()


def _twin(tensor: torch.Tensor, memory: torch.Tensor, start: int) -> torch.Tensor:
    """A tensor that lies in `memory` as the given one does in what begins at `start`."""
    offset = tensor.data_ptr() - start
    size = _reach(tensor)
    if offset % tensor.element_size():
        raise SettingsError("Variables share memory with elements that do not lie on each other.")
    flat = memory[offset : offset + size].view(tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride())


# -- new rows --------------------------------------------------------------------------------------


def _filling(
    item: PlanItem,
    remapping: torch.Tensor,
    box: Box,
    fresh: torch.Tensor | None,
    made: torch.Tensor | None,
) -> Filling | None:
    """What the plan says that rows without an old row get; None: nothing, they stay.

    Args:
        item: What is planned.
        remapping: Of the rows of a box.
        box: The part of the variable that is filled.
        fresh: What an initialiser made for the whole variable, where there is one.
        made: The box's rows that were made of old ones, where they are.
    """
    if not isinstance(item.fill, Constant | Initialised | Mixed):
        return None
    at = (remapping < 0).nonzero().flatten()
    if made is not None:
        return Filling(at, made)
    if isinstance(item.fill, Constant):
        return Filling(at, item.fill.value)
    assert fresh is not None
    rows = take_rows(box.of(fresh).movedim(item.axis, 0), at.to(fresh.device))
    return Filling(at, rows.movedim(0, item.axis).to(item.variable.device))


def fillings(item: PlanItem) -> list[tuple[Part, Filling]]:
    """What new rows of a variable get, for each part of it that is here."""
    if item.remapping is None:
        return []
    fresh = _fresh(item, None)
    found = []
    for part in item.variable.parts:
        rows = item.remapping.rows[part.box.along(item.axis)]
        filling = _filling(item, rows, part.box, fresh, None)
        found += [] if filling is None else [(part, filling)]
    return found


def _fill_mixed(
    items: Sequence[PlanItem], reader: Reader, journal: Journal | None
) -> dict[Variable, Filled]:
    """The rows that are made of old ones; what one table needs serves the next."""
    mixtures = Mixtures()
    seeds: dict[int, int] = {}  # one of each generator, so that variables leave it where one would
    filled: dict[Variable, Filled] = {}
    for item in items:
        fill = item.fill
        if not isinstance(fill, Mixed):
            continue
        from torch_warmstart.execution.mixing import fill_mixed

        drawn = id(fill.generator)
        if fill.answers.is_random and drawn not in seeds:
            seeds[drawn] = draw_seed(fill.generator)

        def guard(label: str, run: Callable[[], Any], name: str = item.name) -> Any:
            return _guarded(f"{name}: {label}", run, journal)

        filled[item.variable] = fill_mixed(
            item,
            fill,
            [part.box for part in parts_of(item.variable.tensor)],
            reader,
            seed=seeds.get(drawn, 0),
            mixtures=mixtures,
            guard=guard,
        )
    return filled


def _fresh(item: PlanItem, journal: Journal | None) -> torch.Tensor | None:
    """What an initialiser makes of a whole tensor, so that fans are right; None: there is none."""
    fill = item.fill
    if not isinstance(fill, Initialised):
        return None
    target = item.variable
    name = f"{item.name}: backup_initializer"

    def run() -> torch.Tensor:
        return initialised(
            name,
            fill.initializer,
            target.shape,
            target.tensor.dtype,
            device=target.device,
            generator=fill.generator,
        )

    fresh: torch.Tensor = _guarded(name, run, journal)
    return fresh


def _guarded(name: str, run: Callable[[], Any], journal: Journal | None) -> Any:
    """What an initialiser makes; raises CallbackError if it raises, or changes anything else."""
    if journal is None:
        return run()
    mark = len(journal)
    try:
        with journal.mode:
            made = run()
    except WarmStartError:
        raise
    except Exception as error:
        raise CallbackError(f"{name} raised {type(error).__name__}: {error}") from error
    if len(journal) > mark or journal.is_rearranged():
        raise CallbackError(
            f"{name} has changed a tensor of the model, of its optimizer or of the checkpoint; it "
            "may change only the tensor that it gets."
        )
    return made
