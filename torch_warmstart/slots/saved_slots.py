"""Where an optimizer's slot comes from: what the ways to find one need and return."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch_warmstart.formats import SavedOptimizer
from torch_warmstart.layouts import Form
from torch_warmstart.model import Variable
from torch_warmstart.names import Source
from torch_warmstart.values import frozen

# Where a variable is found, as the settings have it; None if it is not.
SourceOf = Callable[[Variable], Source | None]


@frozen
class SlotSource:
    """Where a slot comes from.

    `source.form` is the slot's own: the layout of its parameter's slots, or for `step`, what makes
    a count of steps of what the checkpoint keeps.
    """

    source: Source
    reason: str  # how it was found
    scale: float = 1.0  # torch's values are the checkpoint's, multiplied by it
    remarks: tuple[str, ...] = ()  # how torch's optimizer goes on differently; said once a plan
    doubt: str = ""  # that nothing says whether it is that parameter's
    presumed: str = ""  # that nothing but its name says what it is; the same words for all


@frozen
class NoSource:
    """That there can be nothing for a slot in the checkpoint, so that it stays as it is."""

    reason: str
    warning: str = ""  # what to say of it; "": it is as it should be


def slot_form(form: Form) -> Form:
    """How a parameter's slots are kept, if the parameter is kept like this."""
    return Form(form.names, form.layout.slot_layout, form.part)


def slot_keys(optimizers: Sequence[SavedOptimizer]) -> list[str]:
    """The keys of all slots that torch optimizers saved."""
    return [
        key for o in optimizers for parameter in o.parameters for key in parameter.slots.values()
    ]
