"""What becomes of tensors on the meta device, which hold nothing: made, initialised, left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import Finding, listed, plural
from torch_warmstart.model import Variable, is_on_meta, makers_of, transient_buffers
from torch_warmstart.new_rows import Keep
from torch_warmstart.planning.plan import PlanItem

_MADE, _LEFT = "initialised by its module's reset_parameters()", "left on the meta device"
_HINT = (
    "Let reset_parameters() of their modules make them, which a warm start calls; or put them into "
    "the model one by one: its to_empty() would empty what has been filled, too."
)


def with_makers(items: Sequence[PlanItem]) -> tuple[PlanItem, ...]:
    """The items; those of what stays, and is on meta, say who makes it."""
    return tuple(_with_maker(item) if is_made_by_module(item) else item for item in items)


def is_made_by_module(item: PlanItem) -> bool:
    """Whether a variable on meta has values that the checkpoint does not give."""
    return is_on_meta(item.variable) and (
        item.state == "kept" or any(isinstance(fill, Keep) for fill in item.fills)
    )


def _with_maker(item: PlanItem) -> PlanItem:
    how = _MADE if makers_of(item.variable) else _LEFT
    return replace(item, reason=", ".join(filter(None, (item.reason, how))))


def left_by_module(item: PlanItem) -> PlanItem:
    """What has become of a variable that its module was to make, and has not."""
    why = "its new rows are made by nobody"
    if item.state == "kept":
        why = item.reason.removesuffix(f", {_MADE}")
    return PlanItem(item.variable, "kept", f"{why}, {_LEFT}", item.sources, item.owner)


def notes_on_meta(model: torch.nn.Module, items: Sequence[PlanItem]) -> Iterator[Finding]:
    """What is worth knowing of a model on meta."""
    made = [item.variable for item in items if is_on_meta(item.variable)]
    buffers = [buffer for buffer in transient_buffers(model) if is_on_meta(buffer)]
    open_ones = [item.variable for item in items if is_made_by_module(item)]
    reset = [v for v in open_ones if makers_of(v)]
    if made:
        text = (
            f"Made anew on {made[0].device}, as the model is on the meta device: "
            f"{plural(len(made), 'variable')} (such as {made[0].name!r})"
        )
        if reset:
            text += f", of them {len(reset):,} by reset_parameters() of their modules"
        yield Finding("made-from-meta", "note", made[0].name, f"{text}.")
    left = [v for v in (*open_ones, *buffers) if not makers_of(v)]
    if left:
        yield left_on_meta(left)


def left_on_meta(left: Sequence[Variable]) -> Finding:
    """That some hold nothing, which shows as soon as they are used."""
    names = listed(repr(variable.name) for variable in left)
    text = (
        f"Left on the meta device, as the checkpoint does not give them and no module initialises "
        f"them: {plural(len(left), 'tensor')}, {names}."
    )
    return Finding("left-on-meta", "warning", left[0].name, text, _HINT)
