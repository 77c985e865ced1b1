"""Where each variable comes from, by the user's rule or by its own names; for all at once.

A variable that is nowhere, or in more than one place, is remembered as that: whether it is a
problem is decided later, when its neighbours are known too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from torch_warmstart.errors import Finding, MissingTensorError, SettingsError
from torch_warmstart.model import Variable
from torch_warmstart.names import BY_USER, Finder, Source
from torch_warmstart.planning.described import with_config
from torch_warmstart.planning.renames import Renaming
from torch_warmstart.planning.selection import Entry
from torch_warmstart.planning.wishes import Wish, Wishes


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """Where one variable comes from."""

    source: Source | None
    how: str = ""  # it was found, where that is not by its own name
    # Different tensors answer to it, or what a rule asks for is not there.
    error: SettingsError | MissingTensorError | None = None


@dataclass(frozen=True, eq=False)  # without slots, for the cached property
class Located:
    """Where the variables of a model come from."""

    finder: Finder
    of_variable: Mapping[Variable, Location]  # all but slots

    def source(self, variable: Variable) -> Source | None:
        """What a variable is made of; None too if that is a problem of its own."""
        return self.of_variable[variable].source

    def in_module(self, module: torch.nn.Module) -> Sequence[Variable]:
        """The parameters and buffers of a module."""
        return self._by_module.get(module, ())

    @functools.cached_property
    def _by_module(self) -> Mapping[torch.nn.Module, list[Variable]]:
        found: dict[torch.nn.Module, list[Variable]] = {}
        for variable in self.of_variable:
            for module in dict.fromkeys(owner.module for owner in variable.owners):
                found.setdefault(module, []).append(variable)
        return found


def locate(wishes: Wishes, finder: Finder) -> Located:
    """Where each parameter and buffer comes from, selected or not."""
    found = {v: _locate(wish, finder) for v, wish in wishes.items() if v.slot is None}
    return Located(finder, found)


def _locate(wish: Wish, finder: Finder) -> Location:
    variable = wish.variable
    try:
        if wish.rename is not None:
            named = follow_rule(finder, variable, wish.rename)
            return Location(with_config(named, variable, finder.checkpoint), BY_USER)
        source = finder.find(variable)
    except (SettingsError, MissingTensorError) as error:
        return Location(None, error=error)
    if source is None:
        return Location(None)
    source = with_config(source, variable, finder.checkpoint)
    if is_named_alike(source, variable):
        return Location(source)
    return Location(source, source.reason or finder.conventions.how_found)


def follow_rule(finder: Finder, variable: Variable, rename: Entry[Renaming]) -> Source:
    """What a rule makes of a variable, by the first of its names that is there.

    Raises MissingTensorError with near names, or SettingsError if a name is ambiguous.
    """
    renaming = rename.value
    asked_by = renaming.rule.setting if renaming.is_exact else str(renaming.rule)
    find = functools.partial(finder.find_renamed, variable, asked_by=asked_by)
    try:
        return find(rename.owner, renaming.names)
    except MissingTensorError:
        for owner, names in renaming.others:
            with contextlib.suppress(MissingTensorError):
                return find(owner, names)
        raise


def is_named_alike(source: Source, variable: Variable) -> bool:
    """Whether a variable is made of one tensor of its own name."""
    names = {name.replace("/", ".") for name in variable.names}
    return len(source.specs) == 1 and source.specs[0].key.replace("/", ".") in names


def find_idle_rules(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """One problem for a rule that finds none of its many variables; and those variables."""
    by_rule: dict[object, list[Wish]] = {}
    for wish in wishes.values():
        if wish.is_selected and wish.rename is not None and not wish.rename.value.is_exact:
            by_rule.setdefault(wish.rename.value.rule, []).append(wish)
    return {
        _idle(asked[0], located.finder): frozenset(wish.variable for wish in asked)
        for asked in by_rule.values()
        if _none_is_there(asked, located)
    }


def _none_is_there(asked: Iterable[Wish], located: Located) -> bool:
    locations = (located.of_variable[wish.variable] for wish in asked)
    return all(isinstance(location.error, MissingTensorError) for location in locations)


def _idle(wish: Wish, finder: Finder) -> Finding:
    assert wish.rename is not None
    renaming = wish.rename.value
    name = renaming.names[0]
    near = " or ".join(map(repr, finder.near(name)))
    return Finding(
        "rule-finds-nothing",
        "error",
        renaming.rule.setting,
        f"{renaming.rule}: {finder.checkpoint.url} has nothing of what it asks for, such as "
        f"{name!r} for {wish.rename.owner.name!r}.{f' Did you mean {near}?' if near else ''}",
    )
