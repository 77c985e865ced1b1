"""A parameter's slots go together: all of them are taken, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import Finding, plural
from torch_warmstart.model import Variable
from torch_warmstart.names import BY_USER
from torch_warmstart.new_rows import fill_of_slot
from torch_warmstart.planning.deciding import Decision
from torch_warmstart.planning.plan import PlanItem

_NOT_WHOLE = "the rest of its state is not taken"


def keep_whole(
    decisions: Mapping[Variable, Decision],
) -> tuple[dict[Variable, Decision], list[Finding]]:
    """Leaves an optimizer's state for a parameter alone where it would get a part of one.

    Averages without the count of their steps, or a count without them, make steps of many times
    the learning rate. What an option adds, and what the user named, is taken or kept by itself.
    """
    broken: dict[Variable, str] = {}
    for variable, decision in decisions.items():
        if decision.breaks_state is not None and variable.slot is not None:
            broken.setdefault(variable.slot.parameter, decision.breaks_state)
    whole = {v: _whole(decision, broken) for v, decision in decisions.items()}
    whole.update(_rows_together(whole))
    remarks = [remark for decision in whole.values() for remark in decision.remarks]
    return whole, [*_not_whole(whole, broken), *remarks]


def _rows_together(decisions: Mapping[Variable, Decision]) -> Iterator[tuple[Variable, Decision]]:
    """Slots of tables with ids of their own: a row that one of a parameter's lacks, none takes.

    A first average without the second makes a step of many times the learning rate.
    """
    of_parameter: dict[Variable, list[Variable]] = {}
    for variable, decision in decisions.items():
        if variable.slot is not None and decision.item.remapping is not None:
            of_parameter.setdefault(variable.slot.parameter, []).append(variable)
    for slots in of_parameter.values():
        items = [decisions[variable].item for variable in slots]
        if len({id(c.remapping) for item in items for c in item.changes if c.axis == 0}) > 1:
            for variable, item in zip(slots, _having_all(items), strict=True):
                yield variable, replace(decisions[variable], item=item)


def _having_all(items: Sequence[PlanItem]) -> Iterator[PlanItem]:
    """The items, of each only the rows along axis 0 that all of one length have."""
    along_rows = [next((c for c in item.changes if c.axis == 0), None) for item in items]
    for item, change in zip(items, along_rows, strict=True):
        if change is None:
            yield item
            continue
        alike = [
            (other.remapping.rows >= 0).to(change.remapping.rows.device)
            for other in along_rows
            if other is not None and len(other.remapping.rows) == len(change.remapping.rows)
        ]
        fewer, fill = change.remapping.where(torch.stack(alike).all(0)), change.fill
        if fewer is not change.remapping and fill is None and item.variable.slot is not None:
            fill = fill_of_slot(change.vocab, item.variable.slot.start)
        less = replace(change, remapping=fewer, fill=fill)
        yield replace(item, changes=tuple(less if c is change else c for c in item.changes))


def _whole(decision: Decision, broken: Mapping[Variable, str]) -> Decision:
    item = decision.item
    assert item.variable.slot is not None
    is_part = item.variable.slot.parameter in broken and item.state != "kept"
    if not is_part or item.reason == BY_USER:
        return decision
    return Decision(PlanItem(item.variable, "kept", _NOT_WHOLE), is_missing=True)


def _not_whole(
    decisions: Mapping[Variable, Decision], broken: Mapping[Variable, str]
) -> Iterator[Finding]:
    """What is said of states that are left alone, and of those of which the user named a part."""
    named: dict[Variable, Variable] = {}  # by parameter: a slot that is taken nevertheless
    for variable, decision in decisions.items():
        if decision.item.state != "kept" and variable.slot is not None:
            named.setdefault(variable.slot.parameter, variable)
    alone = [parameter for parameter in broken if parameter not in named]
    if alone:
        text = (
            f"The optimizer's state of {plural(len(alone), 'parameter')} (such as "
            f"{alone[0].name!r}) stays as it is, with all of its slots, as parts of a state do not "
            f"go together: {broken[alone[0]]}"
        )
        yield Finding("state-not-whole", "note", alone[0].name, text)
    parts = [parameter for parameter in broken if parameter in named]
    if parts:
        text = (
            f"Of the optimizer's state of {plural(len(parts), 'parameter')} (such as "
            f"{parts[0].name!r}) only what var_name_to_prev_var_name names is taken (such as "
            f"{named[parts[0]].name!r}); its other slots stay as they are, which may not go "
            f"together: {broken[parts[0]]}"
        )
        yield Finding("state-in-parts", "warning", parts[0].name, text)
