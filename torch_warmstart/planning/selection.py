"""Which variables a warm start is about: `vars_to_warm_start` against a model's variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch

from torch_warmstart.errors import (
    CallbackError,
    Finding,
    SettingsError,
    did_you_mean,
    nearest_are,
    plural,
)
from torch_warmstart.layouts import is_mask, original_of, output_axis, vector_of
from torch_warmstart.layouts.tensorflow import STATISTICS
from torch_warmstart.model import (
    Owner,
    Variable,
    VariablesByName,
    canonical_name,
    nearest_to_pattern,
    select_matching,
    select_tensors,
    spelt_for,
)
from torch_warmstart.settings import (
    INFO_TYPES,
    AnyVocabInfo,
    Infos,
    WarmStartSettings,
    check_infos,
    infos_of,
    what_infos_are,
)
from torch_warmstart.values import frozen

_SELECTION = "vars_to_warm_start"
_NOT_TRAINABLE = {"buffer": "a buffer", "slot": "an optimizer's slot"}
_NEAR_LOOKED_FOR = 20  # names that are not there; nobody reads more, and each costs a search
_NO_VOCAB_INFO = "vars_to_warm_start=None takes only variables with a VocabInfo; there is none."


Value = TypeVar("Value")


@frozen
class Entry(Generic[Value]):
    """An entry of one of the settings' dicts, and the owner of the variable it was written for."""

    owner: Owner
    name: str  # as the user spelt it
    value: Value


def select(
    settings: WarmStartSettings, variables: Sequence[Variable]
) -> tuple[list[Variable], list[Finding]]:
    """The selected variables, each once in the model's order, and what is wrong with them."""
    selection = settings.vars_to_warm_start
    if selection is None:
        by_name = VariablesByName(variables)
        named = [by_name.find(name) for name in settings.named_infos]
        chosen = {found[0] for found in named if found is not None}
        problems = [] if named else [_nothing_selected(_NO_VOCAB_INFO)]
        return [v for v in variables if v in chosen], problems
    if isinstance(selection, str):
        trainable = [variable for variable in variables if variable.trainable]
        matching, problems = _by_patterns([selection], trainable, variables, "trainable")
        return _with_slots(matching, variables), problems
    if isinstance(selection[0], str):
        return _by_patterns(selection, variables, variables, "global")
    return _by_tensors(selection, variables)


def _with_slots(parameters: Sequence[Variable], variables: Sequence[Variable]) -> list[Variable]:
    """The parameters and their slots, in the model's order: an optimizer is given for its state."""
    chosen = set(parameters)
    return [v for v in variables if (v.slot.parameter if v.slot is not None else v) in chosen]


def needs_a_list(variable: Variable) -> str:
    """A sentence on what a str does not select; nothing for a parameter."""
    if variable.trainable:
        return ""
    if variable.slot is not None:
        return (
            f" It is {_NOT_TRAINABLE['slot']}: a str selects those of the parameters that it "
            "matches, a list those whose own names match."
        )
    return " It is a buffer: only a list, such as ['.*'], selects buffers."


def selects_parameters_only(settings: WarmStartSettings) -> bool:
    """Whether buffers are left out by the kind of selection, not by its pattern."""
    return isinstance(settings.vars_to_warm_start, str)


def written_out(settings: WarmStartSettings, variables: Sequence[Variable]) -> WarmStartSettings:
    """The settings, with what is for several variables written out for each by its name.

    A VocabInfo for a module is for those of its own variables that have what is along its axis and
    are selected: weight and bias of a class head, for example. A pattern is for all variables whose
    whole name it matches. A variable's own VocabInfo comes first, and then the first pattern.
    """
    settings = _without_patterns(settings, variables)
    given = settings.named_infos
    by_name = VariablesByName(variables if given else ())
    modules = _modules([name for name in given if by_name.find(name) is None], variables)
    if not modules:
        return settings
    spread = {name: info for name, info in given.items() if name not in modules}
    named = {found[0] for name in spread if (found := by_name.find(name))}
    chosen = None
    if settings.vars_to_warm_start is not None:
        chosen = set(select(settings, variables)[0])
    for name, own in modules.items():
        all_infos = {v: _for_variable(given[name], v) for v in own if v not in named}
        infos = {v: found for v, found in all_infos.items() if found}
        selected = [v for v in infos if chosen is None or v in chosen]
        if all(v in named for v in own):
            raise SettingsError(
                f"var_name_to_vocab_info: {name!r} is not used, because each variable of that "
                "module has an entry of its own."
            )
        if not infos:
            axes = " or ".join(str(info.axis) for info in infos_of(given[name]))
            raise SettingsError(
                f"var_name_to_vocab_info: no variable of the module {name!r} has an axis "
                f"{axes}, counted from the start."
            )
        spread.update({v.name: infos[v] for v in selected or infos})
    return replace(settings, var_name_to_vocab_info=spread)


def _without_patterns(
    settings: WarmStartSettings, variables: Sequence[Variable]
) -> WarmStartSettings:
    patterns, spelt = settings.pattern_infos, settings.named_infos
    if not patterns:
        return settings
    by_name = VariablesByName(variables)
    named = {owner[0] for name in spelt if (owner := by_name.find(name))}
    if settings.vars_to_warm_start is None:
        chosen = [v for v in variables if v.slot is None]
    else:
        chosen = [v for v in select(settings, variables)[0] if v.slot is None]
    by_pattern: dict[Variable, str] = {}
    for pattern, info in patterns.items():
        found = [(v, match) for v in chosen if (match := _matched(pattern, v)) is not None]
        if not found:
            near = nearest_are(nearest_to_pattern(pattern.pattern, chosen))
            raise SettingsError(
                f"var_name_to_vocab_info: {pattern.pattern!r} matches the whole name of no "
                f"selected variable.{near}"
            )
        if all(variable in named for variable, _ in found):
            raise SettingsError(_why_unused(pattern, [by_pattern.get(v) for v, _ in found]))
        for variable, match in found:
            if variable not in named and (one := _info_of(info, match)) is not None:
                named.add(variable)
                by_pattern[variable] = pattern.pattern
                spelt[variable.name] = one
    return replace(settings, var_name_to_vocab_info=spelt)


def _why_unused(pattern: re.Pattern[str], before: Sequence[str | None]) -> str:
    """`before`: for each variable that it matches the pattern that has it; None: its own entry."""
    unused = f"var_name_to_vocab_info: {pattern.pattern!r} is not used, because"
    first = next(filter(None, before), None)
    if first is None:
        return f"{unused} each variable that it matches has an entry of its own."
    besides = "" if None not in before else ", or has an entry of its own"
    return (
        f"{unused} {first!r} stands before it and is for all that it matches{besides}: the first "
        "pattern counts, so put the narrower one first."
    )


def _matched(pattern: re.Pattern[str], variable: Variable) -> re.Match[str] | None:
    """How a pattern matches the whole of one of a variable's names."""
    spelt = (spelt_for(pattern.pattern, name) for name in variable.names)
    return next((match for name in spelt if (match := pattern.fullmatch(name)) is not None), None)


def _info_of(info: Any, match: re.Match[str]) -> Infos | None:
    """What a user's function says of a variable; None: nothing is changed about its rows."""
    if not callable(info):
        return info  # type: ignore[no-any-return]
    try:
        made = info(match)
    except Exception as error:
        raise CallbackError(
            f"var_name_to_vocab_info: the function for {match.re.pattern!r} raised "
            f"{type(error).__name__} for {match[0]!r}: {error}"
        ) from error
    if made is None or isinstance(made, INFO_TYPES):
        return made
    if not isinstance(made, list | tuple):
        raise SettingsError(
            f"var_name_to_vocab_info: the function for {match.re.pattern!r} returned a "
            f"{type(made).__name__} for {match[0]!r}, not {what_infos_are()}, or None."
        )
    check_infos(f"var_name_to_vocab_info: {match.re.pattern!r} for {match[0]!r}", made)
    return made


def _for_variable(infos: Infos, variable: Variable) -> tuple[AnyVocabInfo, ...]:
    """Those of a module, whose axes are its weight's, that are for one of its variables.

    A bias is for what its layer has along its outputs' axis, a vector of a spectral norm, or the
    norms of a weight norm, for what one axis of its weight has. What is no weight begins in new
    rows as its module begins it.
    """
    owner = variable.owners[0]
    found = infos_of(infos)
    vector = vector_of(owner.module, owner.leaf)
    if vector is not None or owner.leaf in STATISTICS or is_mask(owner.module, owner.leaf):
        found = tuple(replace(i, backup_initializer="keep", generator=None) for i in found)
    if vector is not None:
        return tuple(replace(info, axis=0) for info in found if info.axis == vector.axis)
    original = original_of(owner.module, owner.leaf)
    if "." in owner.leaf and original is None:
        return ()  # of a parametrization that nobody knows
    if original is not None and original.part == "g":
        return tuple(info for info in found if info.axis == original.dim)
    if owner.leaf == "bias" and output_axis(owner.module) == 1:
        found = tuple(replace(i, axis={0: 1, 1: 0}.get(i.axis, i.axis)) for i in found)
    return tuple(info for info in found if 0 <= info.axis < len(variable.shape))


def _modules(names: Sequence[str], variables: Sequence[Variable]) -> dict[str, list[Variable]]:
    """The names that are modules', and the modules' own variables."""
    if not names:
        return {}
    own: dict[str, list[Variable]] = {}
    for variable in variables:
        for path in {owner.path for owner in variable.owners if variable.slot is None}:
            own.setdefault(path, []).append(variable)
    found = {name: own.get(canonical_name(name)) for name in names}
    return {name: variables for name, variables in found.items() if variables}


def by_variable(
    mapping: Mapping[str, Value] | None,
    setting: str,
    variables: Sequence[Variable],
    usable: Collection[Variable],
) -> tuple[dict[Variable, Entry[Value]], list[Finding]]:
    """A dict of the settings by variable, and what is wrong with its entries.

    Args:
        mapping: Variable name to what stands there for it.
        setting: What the dict is called, for messages.
        variables: All of the model's.
        usable: Those that may have an entry; one for another would silently do nothing.
    """
    entries: dict[Variable, Entry[Value]] = {}
    problems: list[Finding] = []
    by_name = VariablesByName(variables if mapping else ())
    for name, value in (mapping or {}).items():
        found = by_name.find(name)
        if found is None:
            names = [n for variable in variables for n in variable.names]
            near = _if_pattern(name, setting)
            if not near and len(problems) < _NEAR_LOOKED_FOR:
                near = did_you_mean(name, names)
            text = f"{setting}: the model has no variable {name!r}.{near}"
            problems.append(Finding("unknown-variable", "error", name, text))
        elif found[0] not in usable:
            text = (
                f"{setting}: {name!r} is not used, because vars_to_warm_start does not select it."
                + needs_a_list(found[0])
            )
            problems.append(Finding("unused-entry", "error", name, text))
        elif found[0] in entries:
            if value is entries[found[0]].value and not isinstance(value, str):
                continue  # one VocabInfo for all that may be tied, dict.fromkeys(names, info)
            text = f"{setting}: {entries[found[0]].name!r} and {name!r} are the same variable."
            problems.append(Finding("entry-twice", "error", name, text))
        else:
            entries[found[0]] = Entry(found[1], name, value)
    return entries, problems


_AS_PATTERN = {
    "var_name_to_prev_var_name": "patterns are pairs in a list, [({0!r}, ...)]",
    "var_name_to_vocab_info": "a pattern is a key of its own kind, re.compile({0!r})",
}


def _if_pattern(name: str, setting: str) -> str:
    """How a pattern is written, for a name that looks like one."""
    if setting not in _AS_PATTERN or not re.search(r"[*+?^$|\\()\[]", name):
        return ""
    return f" If it is a pattern: {_AS_PATTERN[setting].format(name)}."


def _by_patterns(
    patterns: list[str], candidates: Sequence[Variable], everything: Sequence[Variable], kind: str
) -> tuple[list[Variable], list[Finding]]:
    chosen: set[Variable] = set()
    problems = []
    for pattern in patterns:
        matching = select_matching(candidates, pattern)
        chosen.update(matching)
        if not matching:
            problems.append(_matched_nothing(pattern, candidates, everything, kind))
    return [v for v in candidates if v in chosen], problems


def _matched_nothing(
    pattern: str, candidates: Sequence[Variable], everything: Sequence[Variable], kind: str
) -> Finding:
    problem = (
        f"vars_to_warm_start: {pattern!r} matches none of the model's "
        f"{plural(len(candidates), f'{kind} variable')} (a pattern is matched from the start of a "
        "name)."
    )
    outside = select_matching(everything, pattern)
    if outside:
        noun = _NOT_TRAINABLE[outside[0].kind].partition(" ")[2]
        return _nothing_selected(
            f"{problem} It matches the {noun} {outside[0].name!r}: write a list, [{pattern!r}], to "
            "select among global variables."
        )
    return _nothing_selected(problem + nearest_are(nearest_to_pattern(pattern, candidates)))


def _by_tensors(
    tensors: list[torch.Tensor], variables: Sequence[Variable]
) -> tuple[list[Variable], list[Finding]]:
    chosen, strangers = select_tensors(variables, tensors)
    problems = [
        _nothing_selected(
            f"vars_to_warm_start: tensor number {at} of the list, of shape "
            f"{list(tensors[at].shape)}, is no parameter or persistent buffer of the model (a copy "
            "or a view is another tensor)."
        )
        for at in strangers
    ]
    return chosen, problems


def _nothing_selected(text: str) -> Finding:
    return Finding("nothing-selected", "error", _SELECTION, text)
