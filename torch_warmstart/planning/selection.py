"""Which variables a warm start is about: `vars_to_warm_start` against a model's variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.modules.conv import _ConvTransposeNd

from torch_warmstart.errors import SettingsError, did_you_mean, plural
from torch_warmstart.model import (
    Owner,
    Variable,
    canonical_name,
    find_variable,
    nearest_to_pattern,
    select_matching,
    select_tensors,
)
from torch_warmstart.settings import AnyVocabInfo, WarmStartSettings

_NOT_TRAINABLE = {"buffer": "a buffer", "slot": "an optimizer's slot"}
_NO_VOCAB_INFO = "vars_to_warm_start=None takes only variables with a VocabInfo; there is none."


@dataclass(frozen=True, slots=True)
class Filed:
    """An entry of one of the settings' dicts, and the owner of the variable it was written for."""

    owner: Owner
    name: str  # as the user spelt it
    entry: Any


def select(
    settings: WarmStartSettings, variables: Sequence[Variable]
) -> tuple[list[Variable], list[str]]:
    """The selected variables, each once in the model's order, and what is wrong with them."""
    selection = settings.vars_to_warm_start
    if selection is None:
        named = [find_variable(variables, name) for name in settings.var_name_to_vocab_info or ()]
        chosen = {id(found[0]) for found in named if found is not None}
        problems = [] if named else [_NO_VOCAB_INFO]
        return [v for v in variables if id(v) in chosen], problems
    if isinstance(selection, str):
        trainable = [variable for variable in variables if variable.trainable]
        return _by_patterns([selection], trainable, variables, "trainable")
    if isinstance(selection[0], str):
        return _by_patterns(selection, variables, variables, "global")
    return _by_tensors(selection, variables)


def needs_a_list(variable: Variable) -> str:
    """A sentence on what a str does not select; nothing for a parameter."""
    if variable.trainable:
        return ""
    kind = variable.kind
    return f" It is {_NOT_TRAINABLE[kind]}: only a list, such as ['.*'], selects {kind}s."


def selects_parameters_only(settings: WarmStartSettings) -> bool:
    """Whether buffers are left out by the kind of selection, not by its pattern."""
    return isinstance(settings.vars_to_warm_start, str)


def spread_over_modules(
    settings: WarmStartSettings, variables: Sequence[Variable]
) -> WarmStartSettings:
    """The settings, with a VocabInfo for a module as one for each of its own variables.

    Those that have what is along its axis and are selected: weight and bias of a class head, for
    example. A variable's own VocabInfo comes first.
    """
    given = settings.var_name_to_vocab_info or {}
    modules = {name: _of_module(name, variables) for name in given}
    modules = {n: own for n, own in modules.items() if own and not find_variable(variables, n)}
    if not modules:
        return settings
    spread = {name: info for name, info in given.items() if name not in modules}
    named = {id(found[0]) for name in spread if (found := find_variable(variables, name))}
    chosen = None
    if settings.vars_to_warm_start is not None:
        chosen = {id(variable) for variable in select(settings, variables)[0]}
    for name, own in modules.items():
        infos = {v: _for_variable(given[name], v) for v in own if id(v) not in named}
        fitting = [v for v in infos if 0 <= infos[v].axis < len(v.shape)]
        selected = [v for v in fitting if chosen is None or id(v) in chosen]
        if not fitting:
            raise SettingsError(
                f"var_name_to_vocab_info: no variable of the module {name!r} has an axis "
                f"{given[name].axis}, counted from the start."
            )
        spread.update({v.name: infos[v] for v in selected or fitting})
    return replace(settings, var_name_to_vocab_info=spread)


def _for_variable(info: AnyVocabInfo, variable: Variable) -> AnyVocabInfo:
    """A module's VocabInfo, whose axis is that of its weight, as one for one of its variables.

    A transposed convolution has its outputs, which its bias is for, along the second axis.
    """
    owner = variable.owners[0]
    if owner.leaf != "bias" or not isinstance(owner.module, _ConvTransposeNd):
        return info
    return replace(info, axis={0: 1, 1: 0}.get(info.axis, info.axis))


def _of_module(name: str, variables: Sequence[Variable]) -> list[Variable]:
    path = canonical_name(name)
    return [v for v in variables if v.slot is None and any(o.path == path for o in v.owners)]


def by_variable(
    mapping: Mapping[str, Any] | None,
    setting: str,
    variables: Sequence[Variable],
    usable: set[int],
) -> tuple[dict[int, Filed], list[str]]:
    """A dict of the settings by id of the variable, and what is wrong with its entries.

    Args:
        mapping: Variable name to entry.
        setting: What the dict is called, for messages.
        variables: All of the model's.
        usable: Ids of those that may have an entry; one for another would silently do nothing.
    """
    filed: dict[int, Filed] = {}
    problems = []
    owners = _by_name(variables) if mapping else {}
    for name, entry in (mapping or {}).items():
        found = owners.get(name) or owners.get(canonical_name(name))
        if found is None:
            names = [n for variable in variables for n in variable.names]
            hint = did_you_mean(name, names)
            problems.append(f"{setting}: the model has no variable {name!r}.{hint}")
            continue
        variable, owner = found
        if id(variable) not in usable:
            problems.append(
                f"{setting}: {name!r} is not used, because vars_to_warm_start does not select it."
                + needs_a_list(variable)
            )
        elif id(variable) in filed:
            other = filed[id(variable)].name
            problems.append(f"{setting}: {other!r} and {name!r} are the same variable.")
        else:
            filed[id(variable)] = Filed(owner, name, entry)
    return filed, problems


def _by_name(variables: Sequence[Variable]) -> dict[str, tuple[Variable, Owner]]:
    """As `find_variable`, for many names: by each name, and by its canonical form."""
    found: dict[str, tuple[Variable, Owner]] = {}
    for spell in (str, canonical_name):  # a name as it is comes before what stands for it
        for variable in variables:
            for owner in variable.owners:
                found.setdefault(spell(owner.name), (variable, owner))
    return found


def _by_patterns(
    patterns: list[str], candidates: Sequence[Variable], everything: Sequence[Variable], kind: str
) -> tuple[list[Variable], list[str]]:
    chosen: set[int] = set()
    problems = []
    for pattern in patterns:
        matching = select_matching(candidates, pattern)
        chosen.update(id(variable) for variable in matching)
        if not matching:
            problems.append(_matched_nothing(pattern, candidates, everything, kind))
    return [v for v in candidates if id(v) in chosen], problems


def _matched_nothing(
    pattern: str, candidates: Sequence[Variable], everything: Sequence[Variable], kind: str
) -> str:
    problem = (
        f"vars_to_warm_start: {pattern!r} matches none of the model's "
        f"{plural(len(candidates), f'{kind} variable')} (a pattern is matched from the start of a "
        "name)."
    )
    outside = select_matching(everything, pattern)
    if outside:
        noun = _NOT_TRAINABLE[outside[0].kind].partition(" ")[2]
        return (
            f"{problem} It matches the {noun} {outside[0].name!r}: write a list, [{pattern!r}], to "
            "select among global variables."
        )
    nearest = nearest_to_pattern(pattern, candidates)
    return problem + (f" Nearest: {', '.join(repr(name) for name in nearest)}." if nearest else "")


def _by_tensors(
    tensors: list[torch.Tensor], variables: Sequence[Variable]
) -> tuple[list[Variable], list[str]]:
    chosen, strangers = select_tensors(variables, tensors)
    problems = [
        f"vars_to_warm_start: tensor number {at} of the list, of shape {list(tensors[at].shape)}, "
        "is no parameter or persistent buffer of the model (a copy or a view is another tensor)."
        for at in strangers
    ]
    return chosen, problems
