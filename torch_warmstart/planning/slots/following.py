"""What happens to one slot: it follows its parameter, or there is a reason why not."""

from __future__ import annotations

from dataclasses import replace

import torch

from torch_warmstart.errors import Finding
from torch_warmstart.model import Slot
from torch_warmstart.names import Source
from torch_warmstart.planning.deciding import (
    Decision,
    check_writable,
    decide_found,
    decide_missing,
    undecided,
    where,
)
from torch_warmstart.planning.fitting import choose_layout
from torch_warmstart.planning.locating import is_named_alike
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.slots.known import Known
from torch_warmstart.planning.slots.rows import check_start, infos_of, remapped
from torch_warmstart.planning.wishes import Wish
from torch_warmstart.slots import STEP, NoSource, SlotFinder, SlotSource, needs


def decide_slot(wish: Wish, known: Known) -> Decision:
    """A slot follows its parameter: the same layout, and the same rows.

    Raises ProblemError, or another of our errors, with what is wrong.
    """
    assert wish.variable.slot is not None
    parameter = wish.variable.slot.parameter
    if known.of_model[parameter].is_open:  # said once is enough
        return undecided(wish)
    if wish.rename is None and not wish.infos and not known.finder.has_state:
        return _without_state(wish, known)
    location = where(known.wishes[parameter], known.located)
    if location.source is None:
        return decide_missing(wish, known.located)
    source = choose_layout(parameter, location.source, known.wishes[parameter].layout)
    found = _find(wish, source, known.finder)
    if isinstance(found, SlotSource):
        return _found(wish, location.source, found, known)
    if found is not None:
        return _without_source(wish, found, known)
    explanation = known.finder.explain(wish.variable, location.source)
    return _breaking(decide_missing(wish, known.located, "", explanation), explanation)


def _without_source(wish: Wish, found: NoSource, known: Known) -> Decision:
    """A slot for which the checkpoint can have nothing."""
    decision = decide_missing(wish, known.located, found.reason)
    variable = wish.variable
    assert variable.slot is not None
    if found.warning:
        remark = Finding("optimizer-begins-anew", "warning", variable.name, found.warning)
    elif _has_stepped(variable.slot) and _goes_with_the_taken(variable.slot, known):
        slot, optimizer = variable.slot.name, type(variable.slot.optimizer).__name__
        text = f"{optimizer} keeps {slot!r} from steps of its own: {found.reason}."
        remark = Finding("slot-of-own-steps", "warning", variable.name, text)
    else:
        return decision
    return replace(decision, remarks=(remark,))


def _has_stepped(slot: Slot) -> bool:
    """Whether an optimizer keeps a slot that steps of its own have made.

    A count alone changes no step; and before torch 2.9 Adagrad has all before it steps.
    """
    if slot.is_fused or not slot.present or slot.name == STEP:
        return False
    count = slot.state.get(STEP, 1)
    if isinstance(count, torch.Tensor) and count.ndim:  # one for each row
        return True
    return count is None or bool(count)


def _goes_with_the_taken(slot: Slot, known: Known) -> bool:
    """Whether a slot that stays gets its parameter, or the others of it, from the checkpoint."""
    is_option = not needs(slot.optimizer, slot.name)
    return is_option or known.of_model[slot.parameter].item.state != "kept"


def _without_state(wish: Wish, known: Known) -> Decision:
    """A slot that stays as it is because no optimizer was saved: said once, in the same words."""
    reason = "the checkpoint holds no optimizer's state"
    item = PlanItem(wish.variable, "kept", reason)
    assert wish.variable.slot is not None
    if wish.variable.slot.parameter in known.named:  # a part of its parameter's state is taken
        return _breaking(Decision(item, is_missing=True), f"{reason}.")
    others, stay = "", "those of `optimizer` stay"
    if known.named:
        others, stay = " besides those that var_name_to_prev_var_name names", "the others stay"
    text = (
        f"{known.located.finder.checkpoint.url} holds no optimizer's state, so there are no slots "
        f"to take{others}: {stay} as they are. If that is meant, leave `optimizer` out."
    )
    remark = Finding("no-optimizer-state", "warning", "optimizer", text)
    return Decision(item, is_missing=True, remarks=(remark,))


def _find(wish: Wish, parameter: Source, finder: SlotFinder) -> SlotSource | NoSource | None:
    if wish.rename is None:
        return finder.find(wish.variable, parameter)
    return finder.find_renamed(wish.variable, parameter, wish.rename.value.names)


def _found(wish: Wish, parameter: Source, found: SlotSource, known: Known) -> Decision:
    variable = wish.variable
    assert variable.slot is not None
    check_writable(variable)
    infos = infos_of(wish, known.wishes)
    if not infos:
        decision = decide_found(wish, found.source, found.reason, known.remappings)
    else:
        item = remapped(variable, found, infos, parameter, known)
        check_start(variable, item)
        decision = Decision(item)
    item = decision.item
    if item.state == "kept":
        return _breaking(decision, f"{variable.name}: {item.reason}.")
    is_entry = known.located.finder.conventions.has_optimizer_entries
    if is_entry and item.state == "renamed" and is_named_alike(parameter, variable.slot.parameter):
        item = replace(item, state="copied")  # its key says no more than where the state is kept
    remarks = [
        Finding("optimizer-goes-on-differently", "note", variable.name, remark)
        for remark in found.remarks
    ]
    if found.doubt:
        remarks.append(Finding("state-by-position", "warning", "optimizer", found.doubt))
    if found.presumed:
        remarks.append(Finding("slot-of-presumed-kind", "warning", "optimizer", found.presumed))
    return replace(decision, item=replace(item, scale=found.scale), remarks=tuple(remarks))


def _breaking(decision: Decision, why: str) -> Decision:
    """A slot that is kept, without which the rest of its parameter's state means nothing."""
    slot = decision.item.variable.slot
    assert slot is not None
    return replace(decision, breaks_state=why if needs(slot.optimizer, slot.name) else None)
