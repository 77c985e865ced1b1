"""What the settings ask of each variable: whether it is wanted, by which name, layout and rows.

The settings' dicts go by names; from here on everything goes by variable. What is wrong with them
comes along: an entry or a rule of no use (`selection`, `renames`) would silently do nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch_warmstart.errors import Finding
from torch_warmstart.model import Variable, check_answers
from torch_warmstart.planning.renames import Renaming, read_renames
from torch_warmstart.planning.selection import Entry, by_variable, select
from torch_warmstart.settings import (
    AnyVocabInfo,
    WarmStartSettings,
    asks_for_entries,
    infos_of,
)
from torch_warmstart.values import frozen


@frozen(eq=False)
class Wish:
    """What the settings ask of one variable."""

    variable: Variable
    is_selected: bool
    rename: Entry[Renaming] | None  # None: it is looked for by its own names
    layout: str | None  # None: the one that its module type calls for
    infos: tuple[AnyVocabInfo, ...]  # of its rows, one for each axis that changes
    may_be_missing: bool  # it then stays as it is
    may_misfit: bool  # the same, for another shape or dtype


@frozen(eq=False)
class Wishes(Mapping[Variable, Wish]):
    """The wishes of one warm start, and what is wrong with the settings."""

    settings: WarmStartSettings
    of_variable: Mapping[Variable, Wish]  # all variables there are, in the model's order
    problems: tuple[Finding, ...]

    def __getitem__(self, variable: Variable) -> Wish:
        return self.of_variable[variable]

    def __iter__(self) -> Iterator[Variable]:
        return iter(self.of_variable)

    def __len__(self) -> int:
        return len(self.of_variable)

    def without(self, left_out: Collection[Variable]) -> Wishes:
        """The same, but nothing is asked of some variables, nor of their slots."""
        if not left_out:
            return self
        wishes = {
            variable: replace(wish, is_selected=False, rename=None, layout=None, infos=())
            if variable in left_out or (variable.slot and variable.slot.parameter in left_out)
            else wish
            for variable, wish in self.of_variable.items()
        }
        return replace(self, of_variable=wishes)


def read_wishes(settings: WarmStartSettings, variables: Sequence[Variable]) -> Wishes:
    """What the settings ask of each variable."""
    chosen, problems = select(settings, variables)
    for variable in chosen:
        check_answers(variable)
    selected = frozenset(chosen)
    vocabs, of_vocabs = _entries(settings, "var_name_to_vocab_info", variables, selected)
    layouts, of_layouts = _entries(settings, "var_name_to_layout", variables, selected)
    # With None TensorFlow counts a rename of any variable as used.
    renamable = frozenset(variables) if settings.vars_to_warm_start is None else selected
    renames, of_renames = read_renames(settings.var_name_to_prev_var_name, variables, renamable)
    wishes = {
        variable: Wish(
            variable,
            is_selected=variable in selected,
            rename=renames.get(variable),
            layout=layouts.get(variable),
            infos=infos_of(vocabs.get(variable)),
            may_be_missing=settings.on_missing == "keep"
            and not any(map(asks_for_entries, infos_of(vocabs.get(variable)))),
            may_misfit=settings.on_mismatch == "keep",
        )
        for variable in variables
    }
    return Wishes(settings, wishes, (*problems, *of_vocabs, *of_layouts, *of_renames))


def _entries(
    settings: WarmStartSettings,
    setting: str,
    variables: Sequence[Variable],
    selected: frozenset[Variable],
) -> tuple[dict[Variable, Any], list[Finding]]:
    """The entries of one of the settings' dicts, by variable."""
    entries, problems = by_variable(getattr(settings, setting), setting, variables, selected)
    return {variable: entry.value for variable, entry in entries.items()}, problems
