"""Why an optimizer's slot is not found in a TensorFlow checkpoint, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch_warmstart.errors import SettingsError, listed, plural
from torch_warmstart.formats import TensorSpec
from torch_warmstart.model import Slot, Variable
from torch_warmstart.slots.tensorflow.index import Kept
from torch_warmstart.slots.tensorflow.rules import Target
from torch_warmstart.slots.torch_optimizers import torch_name

_PART = re.compile(r"\d+(?=/[^/]*$)")  # the part's number in a mangled name, see index.py


def unknown_optimizer(variable: Variable) -> str:
    """An optimizer that is none of torch's."""
    slot = slot_of(variable)
    return (
        f"{variable.name}: what {type(slot.optimizer).__name__} keeps as {slot.name!r} is not "
        "known here. If it is the same as a tensor of the checkpoint, name that: "
        f"var_name_to_prev_var_name={{{variable.name!r}: ...}}."
    )


def no_counterpart(optimizer: str) -> str:
    """A class of torch.optim that TensorFlow has nothing like."""
    return (
        f"TensorFlow has no optimizer like {optimizer}, so that its slots stay as they are, "
        "whatever state the checkpoint has: it begins anew."
    )


def not_tied(url: str, keys: Sequence[str], slot: str, example: str | None) -> str:
    """There are slots, and nothing that says whose.

    Args:
        url: Of the checkpoint.
        keys: What may be slots.
        slot: One that is looked for.
        example: What is known to be that; None: no key is.
    """
    others = f" and {plural(len(keys) - 1, 'other')}" if len(keys) > 1 else ""
    shown = repr(example) if example is not None else "..."
    return (
        f"{url} has an optimizer's variables ({keys[0]!r}{others}), but which is whose, or what it "
        "means, cannot be known. Name the key of each slot, for example "
        f"var_name_to_prev_var_name={{{slot!r}: {shown}}}, or leave the slots out by a "
        "list in vars_to_warm_start."
    )


def nothing_fits(
    variable: Variable, target: Target, spec: TensorSpec, every: Sequence[Kept]
) -> str:
    """No optimizer that kept something for a tensor is one to go on from."""
    if not every:
        return (
            f"{variable.name} is not in the checkpoint, which has no optimizer's slots for "
            f"{spec.key!r}."
        )
    keys = listed(repr(key) for kept in every for key in kept.slots.values())
    if any(kept.kind in target.kinds for kept in every):
        return (
            f"{variable.name} is not in the checkpoint: the slots there ({keys}) have other shapes "
            f"than {spec.key!r}."
        )
    # No key is shown: what is said of many variables alike is then said once.
    kinds = " and ".join(dict.fromkeys(kept.kind for kept in every))
    return (
        f"{variable.name} is not in the checkpoint, which has slots of {kinds} for that variable; "
        f"{torch_name(slot_of(variable).optimizer)} cannot go on from those."
    )


def not_kept(variable: Variable, kept: Kept, spec: TensorSpec) -> str:
    """The right optimizer kept something, but not this."""
    found = listed(map(repr, kept.slots.values())) or "nothing"
    return (
        f"{variable.name} is not in the checkpoint, which of {kept.kind}'s slots for {spec.key!r} "
        f"has only {found}."
    )


def not_counted(variable: Variable, kept: Kept) -> str:
    """The right optimizer is there, but not the number of its steps."""
    step = f"{variable.name.rpartition('/')[0]}/step"
    return (
        f"{variable.name} is not in the checkpoint: nothing there counts the steps of {kept.name}. "
        f"Name what does: var_name_to_prev_var_name={{{step!r}: ...}}."
    )


def other_axes(variable: Variable, spec: TensorSpec, layout: str) -> str:
    """Adafactor's factors of a tensor whose axes are moved."""
    return (
        f"{variable.name} is not in the checkpoint: Keras' Adafactor averages over other axes of "
        f"{spec.key!r} than torch's, which is changed by {layout!r}."
    )


def several_fit(
    variable: Variable, quantities: Sequence[str], fitting: Sequence[Kept]
) -> SettingsError:
    """Several optimizers kept what could be meant."""
    keys = [_key(kept, quantities) for kept in fitting]
    shown = listed(map(repr, keys), "and")
    if len({_PART.sub("", key) for key in keys}) == 1:
        return SettingsError(
            f"{variable.name} is in parts: {shown} each have some rows of it, as "
            "TensorFlow 1 saves the slots of a partitioned variable if minimize() runs in a scope. "
            "Leave it out of vars_to_warm_start."
        )
    numbers = [kept.count or kept.powers[0][0] for kept in fitting if kept.count or kept.powers]
    example = keys[0] if variable.shape or not numbers else numbers[0]
    return SettingsError(
        f"{variable.name}: several optimizers kept slots for the same variable: {shown}. "
        f"Say which is meant: var_name_to_prev_var_name={{{variable.name!r}: {example!r}}}."
    )


def learning_rate_is_0(variable: Variable) -> SettingsError:
    """What is to be divided by the learning rate cannot be."""
    return SettingsError(
        f"{variable.name}: the checkpoint has it with the learning rate in it, so it is divided by "
        "the optimizer's lr, which is 0: set lr to the one to go on with first."
    )


def _key(kept: Kept, quantities: Sequence[str]) -> str:
    named = [kept.slots[name] for name in quantities if name in kept.slots]
    return (named or list(kept.slots.values()) or [kept.name])[0]


def slot_of(variable: Variable) -> Slot:
    """The slot that a variable is."""
    assert variable.slot is not None
    return variable.slot
