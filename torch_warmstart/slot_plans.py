"""What happens to one slot of an optimizer: it follows its parameter."""

from __future__ import annotations

from dataclasses import replace

from torch_warmstart.errors import plural
from torch_warmstart.fitting import MisfitError, choose_layout, vocab_axis
from torch_warmstart.names import Source
from torch_warmstart.plan import PlanItem
from torch_warmstart.planning import PROBLEM, Planning
from torch_warmstart.renames import Renaming
from torch_warmstart.settings import AnyVocabInfo
from torch_warmstart.slot_source import SlotSource
from torch_warmstart.sources import find_source, is_named_alike
from torch_warmstart.variable_plans import plan_found, plan_missing, plan_remapped
from torch_warmstart.variables import Variable


def plan_slot(planning: Planning, variable: Variable) -> PlanItem:
    """A slot follows its parameter: the same layout, and the same rows."""
    assert variable.slot is not None
    owner = variable.slot.parameter
    if planning.items[id(owner)].reason == PROBLEM:  # said once is enough
        return PlanItem(variable, "kept", PROBLEM)
    parameter, _ = find_source(planning, owner)
    if parameter is None:
        return plan_missing(planning, variable)
    found = _find_slot(planning, variable, parameter)
    if not isinstance(found, SlotSource):
        explanation = "" if found else planning.slot_finder.explain(variable, parameter)
        return plan_missing(planning, variable, found or "", explanation)
    planning.remarks.update(dict.fromkeys(found.remarks))
    info = _vocab_of_slot(planning, variable)
    if info is None:
        item = plan_found(planning, variable, found.source, found.reason)
    else:
        item = plan_remapped(planning, variable, found.source, info, found.reason)
        _check_start(variable, item)
    in_torch = planning.checkpoint.family == "torch"
    if in_torch and item.state == "renamed" and is_named_alike(parameter, owner):
        item = replace(item, state="copied")  # its key says no more than where the state is kept
    return replace(item, scale=found.scale)


def _find_slot(
    planning: Planning, variable: Variable, parameter: Source
) -> SlotSource | str | None:
    assert variable.slot is not None
    filed = planning.layouts.get(id(variable.slot.parameter))
    parameter = choose_layout(variable.slot.parameter, parameter, filed.entry if filed else None)
    renamed = planning.renames.get(id(variable))
    if renamed is None:
        return planning.slot_finder.find(variable, parameter)
    renaming: Renaming = renamed.entry
    return planning.slot_finder.find_renamed(variable, parameter, renaming.names)


def _vocab_of_slot(planning: Planning, variable: Variable) -> AnyVocabInfo | None:
    """The slot's own VocabInfo, or its parameter's where the slot has rows along that axis."""
    assert variable.slot is not None
    parameter = variable.slot.parameter
    filed = planning.vocabs.get(id(variable))
    if filed is not None or id(parameter) not in planning.vocabs:
        return filed.entry if filed else None
    info: AnyVocabInfo = planning.vocabs[id(parameter)].entry
    axis = vocab_axis(parameter, info)
    same_rank = len(variable.shape) == len(parameter.shape)
    if not same_rank or variable.shape[axis] != parameter.shape[axis]:
        return None
    # Rows without an old one begin as the optimizer begins them.
    return replace(info, backup_initializer=None, generator=None)


def _check_start(variable: Variable, item: PlanItem) -> None:
    slot, remapping = variable.slot, item.remapping
    assert slot is not None
    assert remapping is not None
    has_initializer = item.vocab is not None and callable(item.vocab.backup_initializer)
    if slot.start is None and remapping.num_without_old_row and not has_initializer:
        raise MisfitError(
            f"{variable.name}: nobody knows what {type(slot.optimizer).__name__} begins with for "
            f"the {plural(remapping.num_without_old_row, 'row')} that have no old row. Leave this "
            "slot out of vars_to_warm_start."
        )
