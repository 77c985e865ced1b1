"""All slots: what happens to each, that a parameter's go together, and what is said of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from torch_warmstart.errors import Finding
from torch_warmstart.model import Variable
from torch_warmstart.planning.deciding import Decision, decide_each
from torch_warmstart.planning.locating import Located
from torch_warmstart.planning.rows import Remappings
from torch_warmstart.planning.slots.following import decide_slot
from torch_warmstart.planning.slots.known import Known
from torch_warmstart.planning.slots.notes import (
    find_left_behind,
    find_presumed,
    find_strangers,
)
from torch_warmstart.planning.slots.steps import (
    find_of_batches,
    find_uncounted,
    find_uncounted_by_kernels,
)
from torch_warmstart.planning.slots.whole import keep_whole
from torch_warmstart.planning.wishes import Wishes
from torch_warmstart.slots import Optimizers, SlotFinder


def decide_slots(
    wishes: Wishes,
    of_model: Mapping[Variable, Decision],
    located: Located,
    optimizer: Optimizers | None,
    remappings: Remappings,
) -> tuple[dict[Variable, Decision], list[Finding]]:
    """What happens to each slot, and what there is to say about them."""
    entry = wishes.settings.optimizer_entry
    variables = list(wishes) if entry is None else _with_slots_that_are_meant(wishes)
    finder = SlotFinder(located.finder, variables, located.source, entry)
    known = Known(wishes, located, finder, remappings, of_model)
    of_slots = (wish for wish in wishes.values() if wish.variable.slot is not None)
    decided = decide_each(of_slots, functools.partial(decide_slot, known=known))
    whole, remarks = keep_whole(decided)
    strangers = [] if optimizer is None else find_strangers({**of_model, **whole}, optimizer)
    return whole, [
        *remarks,
        *find_left_behind(decided, known),
        *find_uncounted(whole),
        *find_of_batches(whole, known),
        *find_presumed(whole),
        *find_uncounted_by_kernels(whole),
        *strangers,
    ]


def _with_slots_that_are_meant(wishes: Wishes) -> list[Variable]:
    """All variables but the slots of optimizers of which nothing is selected.

    Who names one state of a checkpoint's and selects one net of two alike says whose it is.
    """
    slots = [wish.variable.slot for wish in wishes.values() if wish.is_selected]
    meant = {id(slot.optimizer) for slot in slots if slot is not None}
    return [v for v in wishes if v.slot is None or id(v.slot.optimizer) in meant]
