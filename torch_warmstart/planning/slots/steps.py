"""What is said of counts of steps: they lie elsewhere, or count something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch_warmstart.errors import Finding, listed
from torch_warmstart.layouts.tensorflow import GRADIENT_SUM, GRADIENT_SUMS
from torch_warmstart.model import Slot, Variable
from torch_warmstart.planning.deciding import Decision
from torch_warmstart.planning.slots.known import Known
from torch_warmstart.slots import (
    STEP,
    changed_in_groups,
    has_averages,
    has_averages_of_kernels,
)

if TYPE_CHECKING:
    from torch_warmstart.formats import Checkpoint

_STEPS_NOT_SET = (
    "{name} gets the averages, but keeps no count of steps with its parameters: where it counts "
    "them in its param groups, set that to the checkpoint's (`group['step']`), or it corrects the "
    "bias of averages that have none."
)
_IN_GROUPS = (
    "{name} gets slots, and its steps change {kept} in its param groups, which are not touched: "
    "set that to the checkpoint's (optimizer.param_groups[0][...] = ...), or it goes on as if it "
    "began."
)
_STEPS_OF_KERNELS = (
    "FBGEMM's kernels get the averages of {parameter}, and count steps where no checkpoint of "
    "TorchRec's has them: set the checkpoint's, fused_optimizer.set_optimizer_step(n), or they "
    "correct the bias of averages that have none."
)
_SUMS = (f"/{GRADIENT_SUMS}/", f"{GRADIENT_SUM}\n")


def find_uncounted(decisions: Mapping[Variable, Decision]) -> list[Finding]:
    """Optimizers that get slots and keep in their param groups, or elsewhere, what goes with them.

    So apex's count their steps, and others what they have found out of the learning rate.
    """
    by_optimizer: dict[int, list[tuple[Slot, Decision]]] = {}
    for variable, decision in decisions.items():
        if variable.slot is not None:
            by_optimizer.setdefault(id(variable.slot.optimizer), []).append(
                (variable.slot, decision)
            )
    return [finding for slots in by_optimizer.values() for finding in _uncounted(slots)]


def _uncounted(slots: Sequence[tuple[Slot, Decision]]) -> Iterator[Finding]:
    taken = [slot for slot, decision in slots if decision.item.state != "kept"]
    changed = changed_in_groups(taken)
    name = type(slots[0][0].optimizer).__name__
    if changed:
        kept = listed(map(repr, changed))
        yield Finding("steps-not-set", "warning", name, _IN_GROUPS.format(name=name, kept=kept))
    elif has_averages([slot.name for slot in taken]) and all(s.name != STEP for s, _ in slots):
        yield Finding("steps-not-set", "warning", name, _STEPS_NOT_SET.format(name=name))


def find_uncounted_by_kernels(decisions: Mapping[Variable, Decision]) -> list[Finding]:
    """Averages of FBGEMM's kernels, whose steps no checkpoint of TorchRec's has."""
    taken: dict[Variable, set[str]] = {}
    for variable, decision in decisions.items():
        slot = variable.slot
        if slot is not None and slot.is_fused and decision.item.state != "kept":
            taken.setdefault(slot.parameter, set()).add(slot.name)
    averages = [parameter for parameter, names in taken.items() if has_averages_of_kernels(names)]
    if not averages:
        return []
    text = _STEPS_OF_KERNELS.format(parameter=averages[0].name)
    return [Finding("steps-not-set", "warning", averages[0].name, text)]


def find_of_batches(decisions: Mapping[Variable, Decision], known: Known) -> list[Finding]:
    """A count of steps that counts batches, several of which Keras made one update of.

    Its optimizer keeps the sums of gradients, and how many it sums in no checkpoint.
    """
    counted = [
        variable
        for variable, decision in decisions.items()
        if variable.slot is not None
        and variable.slot.name == STEP
        and decision.item.state != "kept"
        and not known.located.finder.conventions.has_optimizer_entries
    ]
    if not counted or not _has_sums(known.located.finder.checkpoint):
        return []
    name = counted[0].name
    text = (
        f"{name} is a count of batches: the checkpoint's optimizer had gradient_accumulation_steps,"
        " and torch's is to count updates, by which Adam and others correct their averages. Divide "
        "the counts behind the warm start: state['step'] //= gradient_accumulation_steps."
    )
    return [Finding("steps-of-batches", "warning", name, text)]


def _has_sums(checkpoint: Checkpoint) -> bool:
    """One search of all names together: a regex for each takes as long as all else of a plan."""
    names = "\n".join((*checkpoint, *checkpoint.full_names(), ""))
    return any(part in names for part in _SUMS)
