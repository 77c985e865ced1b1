"""The one rule that would find most of what is not found: a prefix more or less, another scope."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from torch_warmstart.errors import MissingTensorError, SettingsError, UnsupportedError
from torch_warmstart.formats import AVERAGE
from torch_warmstart.layouts import read_leaf
from torch_warmstart.model import ADAPTED, Owner, Variable
from torch_warmstart.names.conventions import plain_name
from torch_warmstart.names.finder import Finder
from torch_warmstart.values import frozen

_SAMPLED = 64  # variables whose names are compared with the checkpoint's
_ALIKE = 20  # names of the checkpoint that are looked at for each
_TRIED = 4  # rules
_FEWEST = 3  # variables that are worth a rule

# Averages that were saved instead of what they average, as TensorFlow calls them.
_AVERAGES = ("(.+)", rf"\1/{AVERAGE}")
# What PEFT has made of the names, and what they were: with its own model around all, and without.
_BY_PEFT = (
    (rf"base_model\.model\.(.*?)(?:{ADAPTED}\.)?([^.]+)", r"\1\2"),
    (rf"(.*){ADAPTED}\.([^.]+)", r"\1\2"),
)

_Move = tuple[tuple[str, ...], tuple[str, ...]]  # the beginnings of names here and there


@frozen
class CommonRule:
    """A scope of the model, the one that stands for it in the checkpoint, and what that finds."""

    source: str
    target: str
    found: tuple[tuple[Variable, str], ...]  # with the first key of each
    pattern: tuple[str, str] | None = None  # and what takes its place, instead of another scope

    def __str__(self) -> str:
        if self.pattern is not None:
            return f"[(r'{self.pattern[0]}', r'{self.pattern[1]}')]"
        return f"{{{self.source!r}: {self.target!r}}}"


def common_rules(
    finder: Finder, missing: Sequence[Variable], taken: Collection[str] = ()
) -> list[CommonRule]:
    """Rules for scopes that find most of some variables, all of their own shapes.

    Those that find the most: one, none, or several that find as many. Where none finds most, those
    of several scopes that do so together.

    Args:
        finder: Of the checkpoint.
        missing: Variables that are not found by their own names.
        taken: Keys that others are found by.
    """
    if len(missing) < _FEWEST:
        return []
    likely = Counter(_moves(finder, _sample(missing))).most_common(_TRIED)
    tried = [_tried(finder, move, missing, taken) for move, _ in likely]
    tried.append(_by_pattern(finder, _AVERAGES, missing, taken))
    tried.sort(key=lambda rule: -len(rule.found))
    counts = [len(rule.found) for rule in tried]
    most = max(_FEWEST, len(missing) // 2 + 1)
    if tried and counts[0] >= most:
        return tried[: counts.count(counts[0])]
    found = [rule for rule in tried if len(rule.found) >= _FEWEST]
    of_scopes = [rule for rule in found if rule.source != "/" and rule.pattern is None]
    together = {variable for rule in of_scopes for variable, _ in rule.found}
    return of_scopes if len(together) >= most else []


def _sample(variables: Sequence[Variable]) -> Sequence[Variable]:
    return variables[:: max(1, len(variables) // _SAMPLED)][:_SAMPLED]


def _moves(finder: Finder, variables: Iterable[Variable]) -> Iterator[_Move]:
    """How the beginnings of variables' names differ from those of names that end alike."""
    for variable in variables:
        owner = variable.owners[0]
        ours = tuple(part for part in plain_name(owner.path).split("/") if part)
        yield from dict.fromkeys(
            _without_common_end(ours, theirs) for theirs in _layers_like(finder, owner, ours)
        )


def _layers_like(finder: Finder, owner: Owner, path: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The paths of layers in the checkpoint that are called so, and have such a tensor."""
    names = {name for form in finder.forms(owner) for names in form.names for name in names}
    for leaf in map(read_leaf, sorted(names)):
        if leaf.is_pattern or leaf.child is not None or not leaf.name:
            continue
        wanted = leaf.name.split("/")
        for name in finder.ending_in("/".join([*path[-1:], *wanted]))[:_ALIKE]:
            yield tuple(plain_name(name).split("/")[: -len(wanted)])


def _without_common_end(ours: tuple[str, ...], theirs: tuple[str, ...]) -> _Move:
    while ours and theirs and ours[-1] == theirs[-1]:
        ours, theirs = ours[:-1], theirs[:-1]
    return ours, theirs


def _tried(
    finder: Finder, move: _Move, missing: Iterable[Variable], taken: Collection[str]
) -> CommonRule:
    ours, theirs = move
    begin = "".join(f"{part}." for part in ours)
    target = "".join(f"{part}{finder.conventions.separator}" for part in theirs)
    found = [
        (variable, key)
        for variable in missing
        if (key := _found(finder, variable, begin, target)) is not None and key not in taken
    ]
    return CommonRule(begin or "/", target or "/", tuple(found))


def without_adapters(
    finder: Finder, missing: Sequence[Variable], taken: Collection[str]
) -> CommonRule:
    """What finds layers that PEFT has put adapters around since, by the names that they had."""
    if not any(f"{ADAPTED}." in variable.name for variable in missing):
        return CommonRule("", "", ())
    tried = [_by_pattern(finder, pattern, missing, taken) for pattern in _BY_PEFT]
    return max(tried, key=lambda rule: len(rule.found))


def _by_pattern(
    finder: Finder,
    pattern: tuple[str, str],
    missing: Iterable[Variable],
    taken: Collection[str],
) -> CommonRule:
    named = ((v, re.fullmatch(pattern[0], v.name)) for v in missing)
    found = [
        (variable, key)
        for variable, match in named
        if match is not None
        if (key := _key_of(finder, variable, match.expand(pattern[1]))) is not None
        if key not in taken
    ]
    return CommonRule("", "", tuple(found), pattern)


def _found(finder: Finder, variable: Variable, begin: str, target: str) -> str | None:
    if not variable.name.startswith(begin):
        return None
    return _key_of(finder, variable, variable.name.removeprefix(begin), target)


def _key_of(finder: Finder, variable: Variable, name: str, target: str = "") -> str | None:
    """The first key of what a variable is made of by another name; None if it does not fit."""
    named = target + name.replace(".", finder.conventions.separator)
    try:
        source = finder.find_renamed(variable, variable.owners[0], (named,))
        fits = source.form.refusal is None and source.shape == variable.shape
    except (MissingTensorError, SettingsError, UnsupportedError):
        return None
    return source.specs[0].key if fits else None
