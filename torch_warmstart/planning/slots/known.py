"""What the decisions on slots are made from."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from torch_warmstart.model import Variable
from torch_warmstart.planning.deciding import Decision
from torch_warmstart.planning.locating import Located
from torch_warmstart.planning.rows import Remappings
from torch_warmstart.planning.wishes import Wishes
from torch_warmstart.slots import SlotFinder
from torch_warmstart.values import frozen


@frozen(eq=False, slots=False)  # without slots, for the cached property
class Known:
    """What the decisions on slots are made from."""

    wishes: Wishes
    located: Located
    finder: SlotFinder
    remappings: Remappings
    of_model: Mapping[Variable, Decision]  # on parameters

    @functools.cached_property
    def named(self) -> frozenset[Variable]:
        """The parameters of which the user named a slot."""
        renamed = (w.variable.slot for w in self.wishes.values() if w.rename and w.is_selected)
        return frozenset(slot.parameter for slot in renamed if slot is not None)
