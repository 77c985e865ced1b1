"""Slots in the state that a torch optimizer saved: by the parameter's name, or by its position."""

from __future__ import annotations

from collections.abc import Sequence

from torch_warmstart.names import Finder, Source
from torch_warmstart.slot_source import SlotSource
from torch_warmstart.variables import Variable


class TorchSlots:
    """The slots in a checkpoint that torch wrote."""

    def __init__(self, finder: Finder, variables: Sequence[Variable]) -> None:
        self._checkpoint = finder.checkpoint

    def find(self, slot: Variable, parameter: Source) -> SlotSource | str | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing."""
        return None
