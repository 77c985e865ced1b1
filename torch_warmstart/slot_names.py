"""Which tensors of a checkpoint are an optimizer's slot."""

from __future__ import annotations

from collections.abc import Sequence

from torch_warmstart.errors import SettingsError
from torch_warmstart.names import Finder, Source
from torch_warmstart.slot_source import SlotSource, slot_form
from torch_warmstart.tf_slots import TensorFlowSlots
from torch_warmstart.torch_slots import TorchSlots
from torch_warmstart.variables import Variable


class SlotFinder:
    """Finds the slots of variables whose own tensors in the checkpoint are known."""

    def __init__(self, finder: Finder, variables: Sequence[Variable]) -> None:
        self._finder = finder
        in_torch = finder.checkpoint.family == "torch"
        self._by_family = (TorchSlots if in_torch else TensorFlowSlots)(finder, variables)

    def find(self, slot: Variable, parameter: Source) -> SlotSource | str | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Args:
            slot: The slot variable.
            parameter: What its parameter is found as, with the layout in use.

        Raises SettingsError if different tensors could be meant.
        """
        return self._by_family.find(slot, parameter)

    def find_renamed(self, slot: Variable, parameter: Source, names: Sequence[str]) -> SlotSource:
        """The tensors that the user named for a slot, one for each that its parameter is made of.

        Raises MissingTensorError with near names, or SettingsError if a name is ambiguous or there
        are too many or too few.
        """
        if len(names) != len(parameter.specs):
            raise SettingsError(
                f"{slot.name}: its parameter is made of {len(parameter.specs)} tensors, so the "
                f"slot is too; var_name_to_prev_var_name names {len(names)}."
            )
        specs = tuple(self._finder.named(slot.owners[0], name) for name in names)
        form = slot_form(parameter.form)
        return SlotSource(Source(specs, slot.owners[0], form), "renamed in settings")
