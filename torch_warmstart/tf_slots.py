"""Slots of TensorFlow's optimizers: what they are called, and how their values differ from torch's."""

from __future__ import annotations

from collections.abc import Sequence

from torch_warmstart.names import Finder, Source
from torch_warmstart.slot_source import SlotSource, slot_form
from torch_warmstart.variables import Variable

_TF1_NAMES = {
    "momentum_buffer": "Momentum",
    "exp_avg": "Adam",
    "exp_avg_sq": "Adam_1",
    "sum": "Adagrad",
}


class TensorFlowSlots:
    """The slots in a checkpoint that TensorFlow wrote."""

    def __init__(self, finder: Finder, variables: Sequence[Variable]) -> None:
        self._checkpoint = finder.checkpoint

    def find(self, slot: Variable, parameter: Source) -> SlotSource | str | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing."""
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
