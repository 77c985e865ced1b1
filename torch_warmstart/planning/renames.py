"""Which rule is for which variable: the user's renames against a model's variables.

Every rule must be used. One that matches nothing is misspelt, and would silently do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from torch_warmstart.errors import Finding, did_you_mean, nearest_are, plural
from torch_warmstart.model import Owner, Variable, nearest_to_pattern, spelt_for
from torch_warmstart.planning.selection import Entry, by_variable, needs_a_list
from torch_warmstart.settings import RenameSetting, Rule, begin_of, canonical_scope, rules_of
from torch_warmstart.values import frozen


@frozen
class Renaming:
    """What a variable is called in the checkpoint, by a rule of the user's."""

    names: tuple[str, ...]  # one a tensor that it is made of
    rule: Rule
    # What the rule makes of a tied variable's other names, of which the checkpoint may have one.
    others: tuple[tuple[Owner, tuple[str, ...]], ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether the rule names the variable itself, so that it must be there."""
        return self.rule.kind == "name"


@dataclass(slots=True)
class _Use:
    """What became of a rule that is for many variables."""

    rule: Rule
    matched: list[Variable] = field(default_factory=list)
    selected: int = 0
    used: int = 0


def read_renames(
    setting: RenameSetting | None, variables: Sequence[Variable], usable: Collection[Variable]
) -> tuple[dict[Variable, Entry[Renaming]], list[Finding]]:
    """The renaming of each variable that has one, and what is wrong with the rules.

    Args:
        setting: `var_name_to_prev_var_name`.
        variables: All of the model's and the optimizers'. Slots are renamed only by their own
            names; otherwise they follow their variables.
        usable: Those that may be renamed; a rule only for others would do nothing.
    """
    rules = rules_of(setting)
    entries, problems = _read_names([r for r in rules if r.kind == "name"], variables, usable)
    spread = _Spread([rule for rule in rules if rule.kind != "name"])
    for variable in variables:
        if variable.slot is not None:
            continue
        found = spread.find(variable, usable=variable in usable, taken=variable in entries)
        if found is not None:
            entries[variable] = found
    return entries, problems + spread.problems + spread.unused(variables)


def _read_names(
    rules: Sequence[Rule], variables: Sequence[Variable], usable: Collection[Variable]
) -> tuple[dict[Variable, Entry[Renaming]], list[Finding]]:
    """The rules that name a variable each."""
    if not rules:
        return {}, []
    entries = {rule.source: Renaming(_as_names(rule.target), rule) for rule in rules}
    return by_variable(entries, rules[0].setting, variables, usable)


class _Spread:
    """The rules that are for many variables, and what they were used for."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.problems: list[Finding] = []
        self._uses = [_Use(rule) for rule in rules]
        self._scopes: dict[str, _Use] = {}
        self._broken: _Use | None = None  # a function whose problem is known
        for use in (use for use in self._uses if use.rule.kind == "scope"):
            first = self._scopes.setdefault(canonical_scope(use.rule.source), use)
            if first is not use:
                text = (
                    f"{first.rule.setting}: {first.rule.source!r} and {use.rule.source!r} are the "
                    "same scope."
                )
                self.problems.append(Finding("entry-twice", "error", use.rule.source, text))
        self._others = [
            (use, re.compile(use.rule.source, re.DOTALL))
            for use in self._uses
            if use.rule.kind != "scope"
        ]

    def find(self, variable: Variable, *, usable: bool, taken: bool) -> Entry[Renaming] | None:
        """The first rule's name for a variable, which counts if it is usable and not taken."""
        matching = list(self._matching(variable))
        for use in {id(use): use for use, _, _ in matching}.values():
            use.matched.append(variable)
            use.selected += usable
        if not matching or not usable or taken:
            return None
        first, owner, names = matching[0]
        first.used += 1
        others = tuple((o, n) for use, o, n in matching[1:] if use is first and o is not owner)
        return Entry(owner, owner.name, Renaming(names, first.rule, others))

    def _matching(self, variable: Variable) -> Iterator[tuple[_Use, Owner, tuple[str, ...]]]:
        """What the rules make of a variable's names, strongest first."""
        for owner in variable.owners:
            yield from self._in_scopes(owner)
        for use, expression in self._others:
            for owner in variable.owners:
                names = self._rename(use, expression, owner)
                if names:
                    yield use, owner, names

    def _in_scopes(self, owner: Owner) -> Iterator[tuple[_Use, Owner, tuple[str, ...]]]:
        if not self._scopes:
            return
        ends = [at + 1 for at, character in enumerate(owner.name) if character == "."]
        for end in (*reversed(ends), 0):  # inner scopes first
            use = self._scopes.get(canonical_scope(owner.name[:end]))
            if use is not None:
                assert isinstance(use.rule.target, str)
                rest = owner.name[end:].replace(".", "/")
                yield use, owner, (begin_of(use.rule.target) + rest,)

    def _rename(self, use: _Use, expression: re.Pattern[str], owner: Owner) -> tuple[str, ...]:
        rule = use.rule
        if rule.kind == "function":
            return self._call(use, owner) if use is not self._broken else ()
        assert isinstance(rule.target, str)
        match = expression.fullmatch(spelt_for(rule.source, owner.name))
        return (match.expand(rule.target),) if match else ()

    def _call(self, use: _Use, owner: Owner) -> tuple[str, ...]:
        function = use.rule.target
        assert callable(function)
        problem = ""
        names: object = None
        try:
            names = function(owner.name)
        except Exception as error:  # whatever a user's function raises is a problem of theirs
            problem = f"raises {type(error).__name__}({error}) for {owner.name!r}."
        if names is None or names == owner.name:
            listed: tuple[str, ...] = ()
        else:
            listed = _as_names(names)
            if not listed or not all(isinstance(name, str) and name for name in listed):
                problem = (
                    f"returns {names!r} for {owner.name!r}; it should be a str, a list of str or "
                    "None."
                )
        if not problem:
            return listed
        text = f"{use.rule.setting}: the function {problem}"
        self.problems.append(Finding("rename-function", "error", use.rule.setting, text))
        self._broken = use  # said once is enough
        return ()

    def unused(self, variables: Sequence[Variable]) -> list[Finding]:
        """What is wrong with rules that did nothing."""
        return [
            Finding("unused-rule", "error", use.rule.source, _why_unused(use, variables))
            for use in self._uses
            if not use.used and use is self._canonical(use) and use is not self._broken
        ]

    def _canonical(self, use: _Use) -> _Use:
        """The use of which this one is not just another spelling."""
        if use.rule.kind != "scope":
            return use
        return self._scopes[canonical_scope(use.rule.source)]


def _why_unused(use: _Use, variables: Sequence[Variable]) -> str:
    rule = use.rule
    if not use.matched:
        return _matches_nothing(rule, variables)
    if not use.selected:
        count = plural(len(use.matched), "variable")
        return (
            f"{rule} is not used, because vars_to_warm_start selects none of its {count} (such as "
            f"{use.matched[0].name!r}).{needs_a_list(use.matched[0])}"
        )
    return (
        f"{rule} is not used: for each of its variables (such as {use.matched[0].name!r}) another "
        "rule counts more. A variable's own name comes before scopes, inner scopes before outer "
        "ones, and scopes before patterns, of which the first counts."
    )


def _matches_nothing(rule: Rule, variables: Sequence[Variable]) -> str:
    if rule.kind == "function":
        return f"{rule.setting}: the function renames nothing; it left all names alone."
    names = [name for v in variables if v.slot is None for name in v.names]
    if rule.kind == "scope":
        ends = ((n, at + 1) for n in names for at, char in enumerate(n) if char == ".")
        scopes = {canonical_scope(name[:end]): None for name, end in ends}
        near = did_you_mean(canonical_scope(rule.source), scopes)
        return f"{rule}: the model has no variables in {rule.source!r}.{near}"
    model = [variable for variable in variables if variable.slot is None]
    return (
        f"{rule}: the pattern matches none of the model's {plural(len(model), 'variable')} (it is "
        f"matched against the whole name).{nearest_are(nearest_to_pattern(rule.source, model))}"
    )


def _as_names(names: object) -> tuple[str, ...]:
    if isinstance(names, str):
        return (names,)
    return tuple(names) if isinstance(names, list | tuple) else ("",)
