"""Which tensors of a checkpoint are an optimizer's slot."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch_warmstart.errors import SettingsError
from torch_warmstart.formats.keyed import keys_beside
from torch_warmstart.model import Variable
from torch_warmstart.names import Finder, Source
from torch_warmstart.slots.saved_slots import NoSource, SlotSource, SourceOf

if TYPE_CHECKING:  # imported where a slot is looked for
    from torch_warmstart.slots.tensorflow import TensorFlowSlots
    from torch_warmstart.slots.torch import TorchSlots


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
        self._variables = variables
        self._source_of = source_of
        self._entry = optimizer_entry

    @functools.cached_property
    def _slots(self) -> TorchSlots | TensorFlowSlots:
        if self._finder.conventions.has_optimizer_entries:
            from torch_warmstart.slots.torch import TorchSlots

            return TorchSlots(self._finder, self._variables, self._source_of, self._entry)
        from torch_warmstart.slots.tensorflow import TensorFlowSlots

        return TensorFlowSlots(self._finder, self._variables, self._source_of)

    @functools.cached_property
    def has_state(self) -> bool:
        """Whether the checkpoint has an optimizer's state, whosever and of whichever kind."""
        return self._slots.has_state

    def find(self, slot: Variable, parameter: Source) -> SlotSource | NoSource | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Args:
            slot: The slot variable.
            parameter: What its parameter is found as, with the layout in use.

        Raises SettingsError if different tensors could be meant.
        """
        return self._slots.find(slot, parameter)

    def explain(self, slot: Variable, parameter: Source) -> str:
        """Why nothing was found, in the same words for all slots that share the reason; or ""."""
        return self._slots.explain(slot, parameter)

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
        for spec in specs:
            self._check_unkeyed(slot, spec.key)
        return self._slots.renamed(slot, parameter, specs)

    def _check_unkeyed(self, slot: Variable, key: str) -> None:
        """Raises SettingsError for the values of a table by keys: each has keys of its own."""
        for listed, table in keys_beside(key):
            if listed in self._finder.checkpoint:
                raise SettingsError(
                    f"{slot.name}: {key!r} is a table by keys, whose rows are those of "
                    f"{listed!r}: a slot has keys of its own, in an order of their own, so that "
                    "its rows are not those of its variable. Name the table, "
                    f"{table!r}, or leave this slot to begin anew."
                )
