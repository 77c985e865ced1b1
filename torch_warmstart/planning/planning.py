"""One planning: what is known about a warm start so far, and what has been found wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch_warmstart.formats import Checkpoint
from torch_warmstart.model import Shape, Variable
from torch_warmstart.names import Finder, Source
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.selection import Filed
from torch_warmstart.settings import WarmStartSettings
from torch_warmstart.slots import SlotFinder
from torch_warmstart.vocabularies import Remapping

PROBLEM = "problem"  # the reason of an item that will never be shown: the plan will not be made


@dataclass(slots=True)
class Planning:
    """One planning: what is known, and what has been found wrong so far."""

    settings: WarmStartSettings
    checkpoint: Checkpoint
    variables: tuple[Variable, ...]
    finder: Finder
    slot_finder: SlotFinder = field(init=False)
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, Shape, Shape]] = field(default_factory=list)
    # The three dicts of the settings, by id of the variable.
    vocabs: dict[int, Filed] = field(default_factory=dict)
    renames: dict[int, Filed] = field(default_factory=dict)
    layouts: dict[int, Filed] = field(default_factory=dict)
    remappings: dict[tuple[Any, ...], Remapping] = field(default_factory=dict)
    hopeless: set[int] = field(default_factory=set)  # ids of variables whose problem is known
    # What variables were found as, and how: their slots ask again.
    found: dict[int, tuple[Source | None, str]] = field(default_factory=dict)
    items: dict[int, PlanItem] = field(default_factory=dict)  # by id of the variable
    remarks: dict[str, None] = field(default_factory=dict)  # on optimizers and losses, each once
    slot_remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)  # by id of the slot
    # By id of a parameter, why its optimizer's state cannot be taken whole, and so not at all.
    broken: dict[int, str] = field(default_factory=dict)
