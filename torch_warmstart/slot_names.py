"""Which tensors of a checkpoint are an optimizer's slot, and how its values differ from torch's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_warmstart.errors import SettingsError
from torch_warmstart.names import Finder, Source
from torch_warmstart.tf_layers import Form
from torch_warmstart.variables import Variable

_TF1_NAMES = {
    "momentum_buffer": "Momentum",
    "exp_avg": "Adam",
    "exp_avg_sq": "Adam_1",
    "sum": "Adagrad",
}


@dataclass(frozen=True, slots=True)
class SlotSource:
    """Where a slot comes from.

    `source.form` is the slot's own: the layout of its parameter's slots, or for `step`, what makes
    a count of steps of what TensorFlow keeps.
    """

    source: Source
    reason: str  # how it was found
    scale: float = 1.0  # torch's values are TensorFlow's, multiplied by it


class SlotFinder:
    """Finds the slots of variables whose own tensors in the checkpoint are known."""

    def __init__(self, finder: Finder, variables: Sequence[Variable]) -> None:
        self._finder = finder
        self._checkpoint = finder.checkpoint
        self._variables = variables

    def find(self, slot: Variable, parameter: Source) -> SlotSource | str | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Args:
            slot: The slot variable.
            parameter: What its parameter is found as, with the layout in use.
        """
        assert slot.slot is not None
        if slot.slot.name not in _TF1_NAMES:
            return None
        specs = []
        for spec in parameter.specs:
            found = self._checkpoint.get(f"{spec.key}/{_TF1_NAMES[slot.slot.name]}")
            if found is None:
                return None
            specs.append(found)
        form = slot_form(parameter.form)
        return SlotSource(Source(tuple(specs), slot.owners[0], form), "TensorFlow's name")

    def find_renamed(self, slot: Variable, parameter: Source, names: Sequence[str]) -> SlotSource:
        """The tensors that the user named for a slot."""
        if len(names) != len(parameter.specs):
            raise SettingsError(
                f"{slot.name}: its parameter is made of {len(parameter.specs)} tensors, so the "
                f"slot is too; var_name_to_prev_var_name names {len(names)}."
            )
        specs = tuple(self._finder.named(slot.owners[0], name) for name in names)
        form = slot_form(parameter.form)
        return SlotSource(Source(specs, slot.owners[0], form), "renamed in settings")


def slot_form(form: Form) -> Form:
    """How a parameter's slots are kept, if the parameter is kept like this."""
    return Form(form.names, form.layout.slot_layout, form.part)
