"""What is said of an optimizer's state besides: left behind, presumed, or of another model."""

from __future__ import annotations

from collections.abc import Mapping

from torch_warmstart.errors import Finding, WarmStartError, plural
from torch_warmstart.model import Variable
from torch_warmstart.model.sharding import FIRST_STATE
from torch_warmstart.planning.deciding import Decision
from torch_warmstart.planning.slots.known import Known
from torch_warmstart.slots import Optimizers, SlotFinder, left_out

_PRESUMED = (
    "{name} is taken for what Adagrad keeps. TorchRec calls the first state of every optimizer "
    "{first!r}, and its files do not say which it was: LARS keeps no more than that, either. "
    "Where it was Adagrad, say so: var_name_to_prev_var_name={{{name!r}: {key!r}}}."
)


def find_left_behind(decisions: Mapping[Variable, Decision], known: Known) -> list[Finding]:
    """An optimizer's state that is there, and of which the settings select nothing."""
    left = [slot for slot in decisions if _is_left_behind(slot, known)]
    is_some_taken = any(known.wishes[slot].is_selected for slot in decisions)
    if not left or is_some_taken or not _has_state(known.finder):
        return []
    text = (
        f"The optimizer's slots (such as {left[0].name!r}) stay as they are though the checkpoint "
        "has an optimizer's state, because vars_to_warm_start selects none of them: a pattern "
        "given as a str takes those of the parameters that it matches, a list of patterns those "
        "whose own names match, such as ['.*']."
    )
    return [Finding("slots-left-behind", "warning", left[0].name, text)]


def _is_left_behind(slot: Variable, known: Known) -> bool:
    """Whether a slot is not wanted though its parameter is taken."""
    assert slot.slot is not None
    return known.of_model[slot.slot.parameter].item.state != "kept"


def _has_state(finder: SlotFinder) -> bool:
    try:
        return finder.has_state
    except WarmStartError:  # it cannot be read, and nobody asked for it
        return False


def find_presumed(decisions: Mapping[Variable, Decision]) -> list[Finding]:
    """A state of FBGEMM's kernels of which the file leaves open whose it is."""
    of_kernels = (v for v in decisions if v.slot is not None and v.slot.is_fused)
    items = (decisions[variable].item for variable in of_kernels)
    item = next((item for item in items if item.state != "kept" and item.is_inferred), None)
    if item is None:
        return []
    text = _PRESUMED.format(name=item.name, key=item.keys[0], first=FIRST_STATE)
    return [Finding("slot-of-presumed-kind", "warning", item.name, text)]


def find_strangers(decisions: Mapping[Variable, Decision], optimizer: Optimizers) -> list[Finding]:
    """An optimizer that still has the parameters which a layer had before it was replaced."""
    of_slots = [decision for variable, decision in decisions.items() if variable.slot is not None]
    is_asked = any(d.item.state != "kept" or d.breaks_state is not None for d in of_slots)
    names, strangers = left_out(optimizer, decisions) if is_asked else ([], 0)
    if not names or not strangers:
        return []
    text = (
        f"{plural(len(names), 'parameter')} of the model (such as {names[0]!r}) "
        f"{'is' if len(names) == 1 else 'are'} in no optimizer, which has "
        f"{plural(strangers, 'tensor')} that the model does not have, as happens where a layer "
        "is replaced after the optimizer is made: make it from model.parameters() when the "
        "model is complete."
    )
    return [Finding("optimizer-has-strangers", "warning", names[0], text)]
