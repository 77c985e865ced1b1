"""What happens to one slot of an optimizer: it follows its parameter."""

from __future__ import annotations

from dataclasses import replace

from torch_warmstart.errors import plural
from torch_warmstart.model import Variable
from torch_warmstart.names import BY_USER, Source
from torch_warmstart.planning.fitting import MisfitError, choose_layout, vocab_axis
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.planning import PROBLEM, Planning
from torch_warmstart.planning.renames import Renaming
from torch_warmstart.planning.sources import find_source, is_named_alike
from torch_warmstart.planning.variable_plans import plan_found, plan_missing, plan_remapped
from torch_warmstart.settings import AnyVocabInfo
from torch_warmstart.slots import Optimizers, SlotSource, left_out, needs

_NOT_WHOLE = "the rest of its state is not taken"


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
        item = plan_missing(planning, variable, found or "", explanation)
        if found is None:
            _note_broken(planning, variable, explanation)
        return item
    info = _vocab_of_slot(planning, variable)
    if info is None:
        item = plan_found(planning, variable, found.source, found.reason)
    else:
        item = plan_remapped(planning, variable, found.source, info, found.reason)
        _check_start(variable, item)
    in_torch = planning.checkpoint.family == "torch"
    if in_torch and item.state == "renamed" and is_named_alike(parameter, owner):
        item = replace(item, state="copied")  # its key says no more than where the state is kept
    if item.state == "kept":
        _note_broken(planning, variable, f"{variable.name}: {item.reason}.")
    else:
        planning.slot_remarks[id(variable)] = found.remarks
    return replace(item, scale=found.scale)


def keep_whole(planning: Planning) -> None:
    """Leaves an optimizer's state for a parameter alone where it would get a part of one.

    Averages without the count of their steps, or a count without them, make steps of many times
    the learning rate. What an option adds, and what the user named, is taken or kept by itself.
    """
    broken: list[str] = []
    for variable in planning.variables:
        item = planning.items[id(variable)]
        if variable.slot is None or id(variable.slot.parameter) not in planning.broken:
            continue
        name = variable.slot.parameter.name
        if item.state != "kept" and item.reason != BY_USER:
            planning.items[id(variable)] = PlanItem(variable, "kept", _NOT_WHOLE)
            planning.missing.append(variable.name)
            planning.slot_remarks.pop(id(variable))
        if name not in broken:
            broken.append(name)
    if broken:
        why = next(iter(planning.broken.values()))
        planning.remarks[
            f"The optimizer's state of {plural(len(broken), 'parameter')} (such as {broken[0]!r}) "
            f"stays as it is, with all of its slots, as parts of a state do not go together: {why}"
        ] = None
    for remarks in planning.slot_remarks.values():
        planning.remarks.update(dict.fromkeys(remarks))


def note_strangers(planning: Planning, optimizer: Optimizers) -> None:
    """An optimizer that still has the parameters which a layer had before it was replaced."""
    if not planning.slot_remarks and not planning.broken:  # no slots are asked for
        return
    names, strangers = left_out(optimizer, planning.variables)
    if names and strangers:
        planning.remarks[
            f"{plural(len(names), 'parameter')} of the model (such as {names[0]!r}) "
            f"{'is' if len(names) == 1 else 'are'} in no optimizer, which has "
            f"{plural(strangers, 'tensor')} that the model does not have, as happens where a layer "
            "is replaced after the optimizer is made: make it from model.parameters() when the "
            "model is complete."
        ] = None


def _note_broken(planning: Planning, variable: Variable, why: str) -> None:
    assert variable.slot is not None
    if needs(variable.slot.optimizer, variable.slot.name):
        planning.broken.setdefault(id(variable.slot.parameter), why)


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
    if len(parameter.shape) > 1 and variable.shape == (parameter.tensor.numel(),):
        raise MisfitError(
            f"{variable.name} is flat, so that the rows of {parameter.name} are not rows of it: it "
            "cannot follow the vocabulary. Leave it out of vars_to_warm_start."
        )
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
