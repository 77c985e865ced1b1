"""Which tensors of a checkpoint are an optimizer's slot."""

from __future__ import annotations

from collections.abc import Sequence

from torch_warmstart.errors import SettingsError
from torch_warmstart.names import Finder, Source
from torch_warmstart.renames import BY_USER
from torch_warmstart.slot_source import SlotSource, slot_form
from torch_warmstart.tf_slots import TensorFlowSlots
from torch_warmstart.torch_slots import SourceOf, TorchSlots
from torch_warmstart.variables import Variable


class SlotFinder:
    """Finds the slots of variables whose own tensors in the checkpoint are known."""

    def __init__(
        self,
        finder: Finder,
        variables: Sequence[Variable],
        source_of: SourceOf,
        optimizer_entry: str | None = None,
    ) -> None:
        """Looks at nothing yet; the arguments are those of `TorchSlots`."""
        self._finder = finder
        self._by_family: TorchSlots | TensorFlowSlots
        if finder.checkpoint.family == "torch":
            self._by_family = TorchSlots(finder, variables, source_of, optimizer_entry)
        else:
            self._by_family = TensorFlowSlots(finder)

    def find(self, slot: Variable, parameter: Source) -> SlotSource | str | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Args:
            slot: The slot variable.
            parameter: What its parameter is found as, with the layout in use.

        Raises SettingsError if different tensors could be meant.
        """
        return self._by_family.find(slot, parameter)

    def explain(self, slot: Variable, parameter: Source) -> str:
        """Why nothing was found, in the same words for all slots that share the reason; or ""."""
        return self._by_family.explain(slot, parameter)

    def find_renamed(self, slot: Variable, parameter: Source, names: Sequence[str]) -> SlotSource:
        """The tensors that the user named for a slot, one for each that its parameter is made of.

        Raises MissingTensorError with near names, or SettingsError if a name is ambiguous or there
        are too many or too few.
        """
        if len(names) != (len(parameter.specs) if slot.shape else 1):  # there is one `step`
            raise SettingsError(
                f"{slot.name}: its parameter is made of {len(parameter.specs)} tensors, so the "
                f"slot is too; var_name_to_prev_var_name names {len(names)}."
            )
        specs = tuple(self._finder.named(slot.owners[0], name) for name in names)
        if isinstance(self._by_family, TensorFlowSlots):
            return self._by_family.renamed(slot, parameter, specs)
        form = slot_form(parameter.form)
        return SlotSource(Source(specs, slot.owners[0], form), BY_USER)
