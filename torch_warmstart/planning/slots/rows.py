"""Which rows of its parameter a slot has, and from which old ones they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import plural
from torch_warmstart.model import Variable
from torch_warmstart.names import Source
from torch_warmstart.planning.deciding import remapped_item
from torch_warmstart.planning.fitting import ProblemError, vocab_axes
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.slots.known import Known
from torch_warmstart.planning.wishes import Wish, Wishes
from torch_warmstart.settings import AnyVocabInfo, VocabInfo
from torch_warmstart.slots import SlotSource, axes_in_slot, is_flat

_LEAVE_OUT = (
    "A slot that cannot follow its parameter: leave it out by a list in vars_to_warm_start (a str "
    "brings all)."
)


def infos_of(wish: Wish, wishes: Wishes) -> tuple[AnyVocabInfo, ...]:
    """The slot's own, or those of its parameter along whose axes the slot has rows."""
    variable = wish.variable
    assert variable.slot is not None
    parameter = variable.slot.parameter
    infos = wishes[parameter].infos
    if wish.infos:
        _check_no_fallback(wish, infos)
    if wish.infos or not infos:
        return wish.infos
    if is_flat(parameter.shape, variable.shape):
        raise ProblemError(
            "slot-is-flat",
            variable,
            f"{variable.name} is flat, so that the rows of {parameter.name} are not rows of it: it "
            "cannot follow the vocabulary.",
            _LEAVE_OUT,
        )
    axes = _axes_of_slot(variable, vocab_axes(parameter, infos))
    if None in axes and _blocks_of(variable) > 1:
        raise ProblemError(
            "slot-of-other-cuts",
            variable,
            f"{variable.name} has a number for each row and cut of {parameter.name} into columns, "
            "and columns of it move: those of a cut are no longer what its sums are of.",
            _LEAVE_OUT,
        )
    return tuple(
        _of_slot(info, axis) for info, axis in zip(infos, axes, strict=True) if axis is not None
    )


def _of_slot(info: AnyVocabInfo, axis: int) -> AnyVocabInfo:
    """A parameter's info for its slot, whose rows without an old one begin as the optimizer's do.

    How many entries were found is the parameter's to answer: a slot may lack some of them.
    """
    if isinstance(info, VocabInfo):
        info = replace(info, min_found=0.0)
    return replace(info, axis=axis, backup_initializer=None, generator=None)


def _check_no_fallback(wish: Wish, of_parameter: Sequence[AnyVocabInfo]) -> None:
    """Rows of a slot come from where its parameter's do, and from nowhere else."""
    known = {id(info) for info in of_parameter}
    own = (i for i in wish.infos if isinstance(i, VocabInfo) and id(i) not in known)
    if any(info.fallback for info in own):
        raise ProblemError(
            "fallback-of-slot",
            wish.variable,
            f"{wish.variable.name}: a slot's rows that are back come from where its parameter's "
            "do. Leave fallback out of its VocabInfo, or the VocabInfo: it follows its parameter.",
        )


def _axes_of_slot(variable: Variable, axes: Sequence[int]) -> tuple[int | None, ...]:
    """Which of a slot's axes are some of its parameter's; None: it has none for that.

    ProblemError where its sizes leave that open; of slots that kernels keep it is known.
    """
    assert variable.slot is not None
    parameter = variable.slot.parameter
    if _is_by_rows(variable):
        return tuple(0 if axis == 0 else None for axis in axes)
    found = axes_in_slot(parameter.shape, variable.shape, axes, variable.slot.axes)
    if found is None:
        raise ProblemError(
            "slot-axes-unclear",
            variable,
            f"{variable.name} of shape {list(variable.shape)}: along which axis it has the rows of "
            f"{parameter.name}, {list(parameter.shape)}, or that it has them once, is not clear.",
            f"Give such a slot a VocabInfo of its own, {{{variable.name!r}: VocabInfo(...)}}, or "
            "leave it out by a list in vars_to_warm_start (a str brings all).",
        )
    return found


def _blocks_of(variable: Variable) -> int:
    """How many times a slot has all rows of its parameter."""
    assert variable.slot is not None
    rows = variable.slot.parameter.shape[:1]
    return variable.shape[0] // rows[0] if _is_by_rows(variable) else 1


def _is_by_rows(variable: Variable) -> bool:
    """Whether a slot has a number, or several, for each row of its parameter."""
    assert variable.slot is not None
    shape = variable.slot.parameter.shape
    return variable.slot.is_fused and len(variable.shape) == 1 < len(shape) and shape[0] > 0


def remapped(
    variable: Variable,
    found: SlotSource,
    infos: Sequence[AnyVocabInfo],
    parameter: Source,
    known: Known,
) -> PlanItem:
    """The item of a slot whose rows move.

    Of a table that is cut into columns, a number for a row is kept once for each cut, all rows of
    the first and then those of the second.
    """
    assert variable.slot is not None
    blocks, remappings = _blocks_of(variable), known.remappings
    if blocks == 1:
        return remapped_item(
            variable,
            found.source,
            infos,
            found.reason,
            remappings,
            parameter=parameter,
            having=_rows_with_a_past(variable, found, known),
        )
    (spec,) = found.source.specs
    before = parameter.specs[0].shape[0]
    if spec.shape != (blocks * before,):
        raise ProblemError(
            "slot-of-other-cuts",
            variable,
            f"{variable.name} has {blocks} blocks of rows, one for each cut of the table into "
            f"columns, but {spec.key!r} has shape {list(spec.shape)} for {before:,} rows: of other "
            "cuts other sums are kept. Cut the table as it was cut.",
            _LEAVE_OUT,
        )
    one = replace(
        variable,
        tensor=torch.empty(variable.shape[0] // blocks, dtype=variable.tensor.dtype, device="meta"),
    )
    source = replace(found.source, specs=(replace(spec, shape=(before,)),))
    item = remapped_item(one, source, infos, found.reason, remappings, parameter=parameter)
    assert item.first is not None
    all_blocks = replace(
        item.first,
        remapping=item.first.remapping.repeated(blocks, before),
        old_size=blocks * before,
    )
    changes = (all_blocks, *item.further)
    return replace(item, variable=variable, sources=(spec,), changes=changes)


def _rows_with_a_past(variable: Variable, found: SlotSource, known: Known) -> torch.Tensor | None:
    """Which rows of a slot's parameter have an old row, where the slot has ids of its own.

    A table of a slot may have an id that its parameter's lacks, or that a filter leaves behind. Its
    row begins anew, and so does its state.
    """
    assert variable.slot is not None
    if known.remappings.old.table_of(tuple(spec.key for spec in found.source.specs)) is None:
        return None
    changes = known.of_model[variable.slot.parameter].item.changes
    return next((c.remapping.rows >= 0 for c in changes if c.axis == 0), None)


def check_start(variable: Variable, item: PlanItem) -> None:
    """What new rows of a slot begin with must be known."""
    slot = variable.slot
    assert slot is not None
    for change in item.changes:
        new = change.remapping.num_without_old_row
        if new and change.fill is None:
            raise ProblemError(
                "slot-start-unknown",
                variable,
                f"{variable.name}: nobody knows what {type(slot.optimizer).__name__} begins with "
                f"for {plural(new, 'row')} without an old one.",
                _LEAVE_OUT,
            )
