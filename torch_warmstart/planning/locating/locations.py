"""Where each variable comes from, by the user's rule or by its own names; for all at once.

A variable that is nowhere, or in more than one place, is remembered as that: whether it is a
problem is decided later, when its neighbours are known too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from torch_warmstart.errors import (
    MissingTensorError,
    SettingsError,
    listed,
)
from torch_warmstart.layouts import Form
from torch_warmstart.model import Extents, Variable, extent_of, lies_on
from torch_warmstart.model.sharding import is_sharded
from torch_warmstart.names import (
    BY_HOOK,
    BY_TRANSFORMERS,
    BY_USER,
    WITHOUT_MODEL,
    Finder,
    Renamed,
    Source,
    bare_name,
)
from torch_warmstart.planning.renames import Renaming
from torch_warmstart.planning.selection import Entry
from torch_warmstart.planning.wishes import Wish, Wishes
from torch_warmstart.settings import SETTING, Rule
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.planning.locating.file_layers import FileLayers

_BY_OTHERS = (BY_USER, BY_HOOK, BY_TRANSFORMERS)
_SUGGESTED = "suggested"  # a rule that nobody has looked at


@frozen(eq=False)
class Location:
    """Where one variable comes from."""

    source: Source | None
    how: str = ""  # it was found, where that is not by its own name
    # Different tensors answer to it, or what a rule asks for is not there.
    error: SettingsError | MissingTensorError | None = None
    explanation: str = ""  # why what it could be is not taken for it
    memory_of: tuple[Variable, ...] = ()  # of a variable that is nowhere: whose memory it lies on
    made_by: Renamed | None = None  # who would make it from several tensors


@frozen(eq=False, slots=False)  # without slots, for the cached property
class Located:
    """Where the variables of a model come from."""

    finder: Finder
    of_variable: Mapping[Variable, Location]  # all but slots

    def source(self, variable: Variable) -> Source | None:
        """What a variable is made of; None too if that is a problem of its own."""
        return self.of_variable[variable].source

    def is_there(self, variable: Variable) -> bool:
        """Whether the checkpoint has it, once or more than once."""
        location = self.of_variable[variable]
        return location.source is not None or isinstance(location.error, SettingsError)

    def scope_of(self, variable: Variable) -> str:
        """The scope that was skipped to find a variable; or ""."""
        source = self.source(variable)
        return min(source.scopes) if source is not None and source.scopes else ""

    def free(self, names: Sequence[str]) -> list[str]:
        """Those of the checkpoint's names under which no variable has been found."""
        return [name for name in names if name not in self._taken]

    @functools.cached_property
    def used(self) -> frozenset[str]:
        """The keys of all that variables are made of, whether selected or not."""
        sources = (location.source for location in self.of_variable.values())
        return frozenset(s.key for source in sources if source is not None for s in source.specs)

    @functools.cached_property
    def unused(self) -> frozenset[str]:
        """The checkpoint's other keys: where there are none, nothing can be lost."""
        return self.finder.keys - self.used

    @functools.cached_property
    def _taken(self) -> frozenset[str]:
        return self.used | {bare_name(key) for key in self.used}

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


def locate(wishes: Wishes, finder: Finder, renamed: Iterator[Renamed]) -> Located:
    """Where each parameter and buffer comes from, selected or not.

    Args:
        wishes: What is asked of each.
        finder: Of the checkpoint.
        renamed: Names that others make of keys; the next is asked for if something is nowhere yet.
    """
    from torch_warmstart.planning.locating.file_layers import FileLayers

    layers = FileLayers(finder.checkpoint)
    found = {v: _locate(wish, finder, layers) for v, wish in wishes.items() if v.slot is None}
    while (nowhere := _nowhere(found)) and (names := next(renamed, None)) is not None:
        # A hook may give one tensor two names.
        taken = _taken(found.values()) if names.how == BY_TRANSFORMERS else frozenset()
        found |= dict(_renamed(nowhere, finder, names, taken))
    return Located(finder, _with_what_shares_memory(_without_doubles(found), wishes))


def _taken(locations: Iterable[Location]) -> frozenset[str]:
    sources = (location.source for location in locations if location.source is not None)
    return frozenset(spec.key for source in sources for spec in source.specs)


def _nowhere(found: Mapping[Variable, Location]) -> list[Variable]:
    return [v for v, at in found.items() if at.source is None and at.error is None]


def _renamed(
    variables: Iterable[Variable], finder: Finder, names: Renamed, taken: Container[str]
) -> Iterator[tuple[Variable, Location]]:
    """What others' names lead to; a key that is `taken` is another variable's by its own name."""
    for variable in variables:
        of_owners = ((o, name) for o in variable.owners for name in (o.state_dict_name, o.name))
        called = next(((owner, name) for owner, name in of_owners if name in names.keys), None)
        if called is None:
            continue
        owner, name = called
        key = names.keys[name]
        if key and key not in taken:
            source = Source((finder.spec(key),), owner, Form(((owner.leaf,),)))
            yield variable, Location(source, names.how)
        elif key or name not in finder.keys:  # else it is said why it is not taken
            yield variable, Location(None, made_by=names)


def _locate(wish: Wish, finder: Finder, layers: FileLayers) -> Location:
    variable = wish.variable
    try:
        if wish.rename is not None:
            named = layers.lay_out(follow_rule(finder, variable, wish.rename), variable)
            return _by_rule(named, wish.rename.value.rule)
        source = finder.find(variable)
    except (SettingsError, MissingTensorError) as error:
        return Location(None, error=error)
    if source is None:
        return Location(None)
    source = layers.lay_out(source, variable)
    if is_named_alike(source, variable) and not source.is_inferred:
        return Location(source)
    return Location(source, source.reason or finder.conventions.how_found)


def _by_rule(source: Source, rule: Rule) -> Location:
    if not rule.is_suggested:
        return Location(source, BY_USER)
    return Location(replace(source, is_inferred=True), _SUGGESTED)


def _without_doubles(found: Mapping[Variable, Location]) -> dict[Variable, Location]:
    """The same, but what was inferred for a variable is not taken if it may be another's.

    That is where another one is made of it, and where a name leaves out the model that its layer is
    in, while another variable, which is nowhere, is called so in a module. Variables of one module
    may share a tensor, as gates do, and a user's rules may give one to two.
    """
    found = _without_namesakes(found)
    guessed = [variable for variable, location in found.items() if _is_guessed(location)]
    users: dict[object, list[Variable]] = {}
    for variable, location in found.items():
        for part in location.source.identity if guessed and location.source is not None else ():
            users.setdefault(part, []).append(variable)
    nowhere = [v for v, location in found.items() if location.source is None]
    ends = {end: v for v in nowhere for name in v.names for end in _endings(name)}
    rivals: dict[Variable, Variable] = {}
    for variable in guessed:
        source = found[variable].source
        assert source is not None
        others = [user for part in source.identity for user in users[part]]
        if source.reason == WITHOUT_MODEL:
            others += [ends[name] for name in variable.names if name in ends]
        other = _of_another_module(variable, others)
        if other is not None:
            rivals[variable] = other
    return {v: _not_taken(v, at, rivals[v]) if v in rivals else at for v, at in found.items()}


def _without_namesakes(found: Mapping[Variable, Location]) -> Mapping[Variable, Location]:
    """The same, but a tensor that is called exactly as one variable is not another's by spelling.

    A model may have parameters `a/b` and `a.b`, or `ids` and `ids:0`.
    """
    by_name = {name: variable for variable in found for name in variable.names}
    rivals: dict[Variable, Variable] = {}
    for variable, location in found.items():
        if location.source is None or location.how in (*_BY_OTHERS, _SUGGESTED):
            continue
        for spec in location.source.specs:
            other = by_name.get(spec.key, variable)
            if other is not variable and not lies_on(other.tensor, [variable.tensor]):
                rivals[variable] = other
    return {v: _not_taken(v, at, rivals[v]) if v in rivals else at for v, at in found.items()}


def _with_what_shares_memory(
    found: Mapping[Variable, Location], wishes: Wishes
) -> dict[Variable, Location]:
    """The same, but what is nowhere and lies on the memory of others is filled with them.

    Such are parameters that are made of each other's data: tied, but not the same object.
    """
    nowhere = [v for v, location in found.items() if _may_be_anywhere(location, wishes[v])]
    filled = [v for v, at in found.items() if at.source is not None and wishes[v].is_selected]
    filled = [v for v in filled if not is_sharded(v.tensor)] if nowhere else []
    memory = Extents((variable.tensor, variable) for variable in filled)
    shared = dict(found)
    for variable in nowhere:
        under = [*memory.touching(extent_of(variable.tensor))]
        if under and lies_on(variable.tensor, [other.tensor for other in under]):
            shared[variable] = _on_memory_of(under, wishes[variable])
    return shared


def _on_memory_of(others: Sequence[Variable], wish: Wish) -> Location:
    if not wish.infos and wish.layout is None:
        return Location(None, memory_of=tuple(others))
    setting = "var_name_to_vocab_info" if wish.infos else "var_name_to_layout"
    explanation = (
        f"{wish.variable.name} is not in the checkpoint, and shares its memory with "
        f"{listed((other.name for other in others), 'and')}: what {setting} says of it must be "
        f"said of {others[0].name!r}."
    )
    return Location(None, explanation=explanation)


def _may_be_anywhere(location: Location, wish: Wish) -> bool:
    """Whether a variable is not found, and it is no exact rule that asks for it."""
    is_exact = wish.rename is not None and wish.rename.value.is_exact
    is_missing = location.error is None or isinstance(location.error, MissingTensorError)
    is_here = not is_sharded(wish.variable.tensor)
    return location.source is None and is_missing and wish.is_selected and is_here and not is_exact


def _endings(name: str) -> Iterator[str]:
    """A name without its first parts."""
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _is_guessed(location: Location) -> bool:
    source = location.source
    return source is not None and source.is_inferred and location.how != _SUGGESTED


def _of_another_module(variable: Variable, others: Iterable[Variable]) -> Variable | None:
    modules = {owner.module for owner in variable.owners}
    strangers = (v for v in others if modules.isdisjoint(o.module for o in v.owners))
    return next((v for v in strangers if not lies_on(v.tensor, [variable.tensor])), None)


def _not_taken(variable: Variable, location: Location, other: Variable) -> Location:
    assert location.source is not None
    keys = [spec.key for spec in location.source.specs]
    target = keys[0] if len(keys) == 1 else keys
    how = location.how or "spelt otherwise"
    explanation = (
        f"{variable.name} is not in the checkpoint under a name of its own. It could be "
        f"{' + '.join(map(repr, keys))} ({how}), but so is {other.name}, and the two are "
        "not tied. If both are to be filled from it, say so: "
        f"{SETTING}={{{variable.name!r}: {target!r}}}."
    )
    return Location(None, explanation=explanation)


def follow_rule(finder: Finder, variable: Variable, rename: Entry[Renaming]) -> Source:
    """What a rule makes of a variable, by those of its names that are there.

    Raises MissingTensorError with near names, or SettingsError if a name is ambiguous, or two of
    them lead to different values.
    """
    renaming = rename.value
    asked_by = renaming.rule.setting if renaming.is_exact else str(renaming.rule)
    find = functools.partial(finder.find_renamed, variable, asked_by=asked_by)
    found: list[Source] = []
    for owner, names in renaming.others:
        with contextlib.suppress(MissingTensorError):
            found.append(find(owner, names))
    try:
        found.insert(0, find(rename.owner, renaming.names))
    except MissingTensorError:
        if not found:
            raise
    return finder.agreed(variable, found)


def is_named_alike(source: Source, variable: Variable) -> bool:
    """Whether a variable is made of one tensor of its own name."""
    names = {name.replace("/", ".") for name in variable.names}
    return len(source.specs) == 1 and source.specs[0].key.replace("/", ".") in names
