"""Where each variable comes from, by the user's rule or by its own names; for all at once.

A variable that is nowhere, or in more than one place, is remembered as that: whether it is a
problem is decided later, when its neighbours are known too.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from torch_warmstart.errors import (
    Finding,
    MissingTensorError,
    SettingsError,
    listed,
    meant_one_of,
    plural,
)
from torch_warmstart.layouts import Form
from torch_warmstart.layouts.tensorflow import is_uncounted_in_tf
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
    from torch_warmstart.planning.file_layers import FileLayers

# A shard by itself, as transformers and others call theirs.
_ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-(\d{5})\.(?:safetensors|bin|pt|pth)$")
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
    from torch_warmstart.planning.file_layers import FileLayers

    layers = FileLayers(finder.checkpoint)
    found = {v: _locate(wish, finder, layers) for v, wish in wishes.items() if v.slot is None}
    while (nowhere := _nowhere(found)) and (names := next(renamed, None)) is not None:
        found |= dict(_renamed(nowhere, finder, names))
    return Located(finder, _with_what_shares_memory(_without_doubles(found), wishes))


def _nowhere(found: Mapping[Variable, Location]) -> list[Variable]:
    return [v for v, at in found.items() if at.source is None and at.error is None]


def _renamed(
    variables: Iterable[Variable], finder: Finder, names: Renamed
) -> Iterator[tuple[Variable, Location]]:
    for variable in variables:
        of_owners = ((o, name) for o in variable.owners for name in (o.state_dict_name, o.name))
        called = next(((owner, name) for owner, name in of_owners if name in names.keys), None)
        if called is None:
            continue
        owner, name = called
        key = names.keys[name]
        if key:
            source = Source((finder.spec(key),), owner, Form(((owner.leaf,),)))
            yield variable, Location(source, names.how)
        elif name not in finder.keys:  # else it is said why it is not taken
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
    return Finding(
        "rule-finds-nothing",
        "error",
        renaming.rule.setting,
        f"{renaming.rule}: {finder.checkpoint.url} has nothing of what it asks for, such as "
        f"{name!r} for {wish.rename.owner.name!r}.{meant_one_of(finder.near(name))}",
    )


def find_made_by_others(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """A problem for all that only the model's load hooks, or its library, could make; and for whom.

    With on_missing='keep' it is a warning.
    """
    by_maker: dict[str, list[Wish]] = {}
    for variable, location in located.of_variable.items():
        if location.made_by is not None and wishes[variable].is_selected:
            by_maker.setdefault(_made_by(location.made_by), []).append(wishes[variable])
    return {
        _made_elsewhere(how, made): frozenset(wish.variable for wish in made)
        for how, made in by_maker.items()
    }


def _made_by(names: Renamed) -> str:
    return (
        f"would be made by {names.by} from tensors of other names, which a plan cannot follow. Let "
        f"it do that: {names.instead}."
    )


def _made_elsewhere(how: str, made: Sequence[Wish]) -> Finding:
    first = made[0].variable.name
    others = f" (and {plural(len(made) - 1, 'other variable')})" if made[1:] else ""
    is_kept = all(wish.may_be_missing for wish in made)
    return Finding(
        "made-by-hook", "warning" if is_kept else "error", first, f"{first}{others} {how}"
    )


@frozen
class _Cause:
    """Why most of what is missing is, and of which variables that is the reason, if not of all."""

    code: str
    text: str  # behind the sentence that the first of them is missing
    explains: tuple[Variable, ...]


def find_missing_rule(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """One problem for most of what is not found, if it has one cause; and those variables.

    One rule would find it, the file does not say what its layers are called, or all of it is in
    another file or entry. With on_missing='keep' it is a warning, and nothing is a problem anyway.
    """
    missing = [wish for wish in wishes.values() if _is_missing(wish, located)]
    if not missing:
        return {}
    variables = tuple(wish.variable for wish in missing)
    cause = next(filter(None, (find(variables, located) for find in _CAUSES)), None)
    if cause is None:
        return {}
    first, more = cause.explains[0].name, len(missing) - 1
    verb = "is" if more == 1 else "are"
    others = f", and neither {verb} {plural(more, 'other variable')}" if more else ""
    text = f"{first} is not in the checkpoint{others}. {cause.text}"
    is_kept = all(wish.may_be_missing for wish in missing)
    finding = Finding(cause.code, "warning" if is_kept else "error", first, text)
    return {finding: frozenset(cause.explains)}


def _by_one_rule(missing: Sequence[Variable], located: Located) -> _Cause | None:
    from torch_warmstart.names import common_rules

    rules = common_rules(located.finder, missing, located.used)
    if not rules:
        return None
    rule, *more = rules
    explained = tuple(dict.fromkeys(variable for found in rules for variable, _ in found.found))
    count, of = f"{len(rule.found):,}", f"{len(missing):,}"
    if more:
        each = " or ".join(map(str, rules[:3]))
        text = (
            f"{len(rules):,} rules find {count} of the {of} each: say which is meant, "
            f"{SETTING}={each}."
        )
    else:
        first, key = rule.found[0]
        text = (
            f"One rule finds {count} of the {of}: {SETTING}={rule}. With it, {first.name} is "
            f"{key!r}."
        )
    return _Cause("rule-missing", text, explained)


def _without_layer_names(missing: tuple[Variable, ...], located: Located) -> _Cause | None:
    stored = located.finder.without_a_name()
    if stored is None:
        return None
    layer = _known_layer(stored, located)
    if layer:
        text = (
            f"{stored!r} lies in the layer {layer!r}, of which others are taken, and the file "
            "does not say which of the layer's tensors it is (one made with scale=False or "
            f"center=False has one less). Say so: {SETTING}={{{missing[0].name!r}: {stored!r}}}, "
            "if it is."
        )
    else:
        text = (
            f"The file does not say what its layers are called: {stored!r} is only where a tensor "
            "lies in it. suggest_names() proposes rules, by types, shapes and order."
        )
    return _Cause("layers-without-names", text, missing)


def _known_layer(key: str, located: Located) -> str:
    """What the file calls the layer of a tensor, if others of it are taken; or ""."""
    checkpoint = located.finder.checkpoint
    layer = checkpoint.layer_of(key) if key in checkpoint else None
    return "" if layer is None or located.used.isdisjoint(layer.keys) else layer.name


def _in_other_files(missing: tuple[Variable, ...], located: Located) -> _Cause | None:
    checkpoint = located.finder.checkpoint
    shard = _ONE_OF_SEVERAL.search(checkpoint.url)
    if shard is not None:
        text = (
            f"{checkpoint.url} is one of {int(shard[1]):,} files of one checkpoint: pass the "
            "folder that they are in, or the index that lists them (such as "
            "model.safetensors.index.json)."
        )
    elif checkpoint.models_beside:
        text = (
            f"The folder has {listed(map(repr, checkpoint.models_beside), 'and')} besides "
            f"{checkpoint.url}, as Accelerate writes a file for each model: pass the file that is "
            "meant."
        )
    else:
        return None
    return _Cause("one-of-several-files", text, missing)


def _in_other_entries(missing: tuple[Variable, ...], located: Located) -> _Cause | None:
    checkpoint = located.finder.checkpoint
    entries = "" if located.used else checkpoint.entries_beside()
    if not entries:
        return None
    text = (
        f"Other entries of {checkpoint.url} have tensors, too: {entries}. If one of them is "
        "meant, write entry='...'."
    )
    return _Cause("entry-without-names", text, missing)


# In this order.
_CAUSES = (_by_one_rule, _without_layer_names, _in_other_files, _in_other_entries)


def _is_missing(wish: Wish, located: Located) -> bool:
    variable = wish.variable
    if not wish.is_selected or wish.rename is not None or variable.slot is not None:
        return False
    location = located.of_variable[variable]
    is_there = bool(location.source or location.error or location.memory_of)
    is_said = bool(location.explanation or location.made_by)
    owner = variable.owners[0]
    return not is_there and not is_said and not is_uncounted_in_tf(owner.module, owner.leaf)
