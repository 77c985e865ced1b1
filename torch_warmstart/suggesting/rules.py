r"""Rules that stand for many renames: scopes, and patterns where numbers are carried over.

Of a layer `encoder.layer.3.attention.self` that is at `bert/encoder/layer_3/attention/self`, what
both end in is cut off. What is left is a scope, or with its numbers a pattern:
`encoder\.layer\.(\d+)\.(.+)` to `bert/encoder/layer_\1/\2`. A rule is proposed only if it
makes of every variable that it matches what is proposed for that variable, or found for it anyway:
it is tried. A pattern needs two layers whose numbers differ, and carries over every number that it
matches; other numbers stand in it as they are.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch_warmstart.errors import MissingTensorError, SettingsError
from torch_warmstart.model import Variable
from torch_warmstart.names import Finder
from torch_warmstart.settings import begin_of, canonical_scope
from torch_warmstart.suggesting.confidence import CONFIDENCES
from torch_warmstart.suggesting.suggestions import SuggestedRule, Suggestion
from torch_warmstart.values import frozen

_FEWEST = 2  # variables that a rule must stand for
_NUMBER = re.compile(r"\d+")


@frozen
class Move:
    """A layer's path in the model, and the one in the checkpoint."""

    ours: str
    theirs: str


@dataclass(slots=True)
class _Draft:
    """A rule that may be proposed."""

    source: str
    target: str
    expression: re.Pattern[str] | None = None  # None: it is a scope
    variables: list[str] = field(default_factory=list)  # suggestions that it is for

    @property
    def scope(self) -> str:
        return canonical_scope(self.source)

    def apply(self, name: str) -> str | None:
        """What the rule makes of a name, or None."""
        if self.expression is None:
            if not name.startswith(self.scope):
                return None
            return begin_of(self.target) + name.removeprefix(self.scope).replace(".", "/")
        match = self.expression.fullmatch(name)
        return match.expand(self.target) if match else None

    def has_examples(self, names: Iterable[str]) -> bool:
        """Whether a pattern stands for layers of different numbers, so that it is one."""
        if self.expression is None:
            return True
        matches = map(self.expression.fullmatch, names)
        return len({match.groups()[:-1] for match in matches if match is not None}) > 1

    def matching(self, names: Sequence[str]) -> list[str]:
        """Those of some names, sorted, that the rule is for."""
        if self.expression is not None:
            return [name for name in names if self.expression.fullmatch(name)]
        first = bisect.bisect_left(names, self.scope)
        inside = itertools.islice(names, first, None)
        return list(itertools.takewhile(lambda name: name.startswith(self.scope), inside))


def find_rules(
    finder: Finder,
    variables: Sequence[Variable],
    found: Mapping[Variable, tuple[str, ...]],
    moves: Sequence[Move],
    items: Sequence[Suggestion],
) -> list[SuggestedRule]:
    """Rules that stand for suggestions, those for most first; no suggestion is in two.

    Args:
        finder: Of the checkpoint.
        variables: The model's that rules may be for: without slots, and without those that have a
            rule already.
        found: The keys of those that need no rule.
        moves: Of the layers for which there are suggestions.
        items: The suggestions.
    """
    check = _Check(finder, variables, _expected(finder, variables, found, items))
    by_name = {item.variable: item for item in items}
    at = {name: number for number, name in enumerate(by_name)}
    names = sorted(by_name)
    drafts = _drafts(moves)
    for draft in drafts:
        draft.variables = sorted(draft.matching(names), key=at.__getitem__)
    drafts = [draft for draft in drafts if draft.variables]
    # Those for most first; of scopes and patterns for as many, patterns; else in the model's order.
    drafts.sort(
        key=lambda rule: (-len(rule.variables), rule.expression is None, at[rule.variables[0]])
    )
    rules: list[SuggestedRule] = []
    covered: set[str] = set()
    for draft in drafts:
        own = [name for name in draft.variables if name not in covered]
        if len(own) < _FEWEST or not draft.has_examples(own) or not check.is_right(draft):
            continue
        covered.update(own)
        least = max((by_name[name].confidence for name in own), key=CONFIDENCES.index)
        is_scope = draft.expression is None
        rules.append(SuggestedRule(draft.source, draft.target, is_scope, tuple(own), least))
    return rules


def _expected(
    finder: Finder,
    variables: Sequence[Variable],
    found: Mapping[Variable, tuple[str, ...]],
    items: Sequence[Suggestion],
) -> dict[Variable, tuple[str, ...]]:
    """The keys that each variable should come from."""
    expected = dict(found)
    by_name = {item.variable: item for item in items if item.names}
    for variable in variables:
        item = next((by_name[name] for name in variable.names if name in by_name), None)
        if item is not None and item.layout is None:
            specs = (finder.named(variable.owners[0], name) for name in item.names)
            expected[variable] = tuple(spec.key for spec in specs)
    return expected


def _drafts(moves: Iterable[Move]) -> list[_Draft]:
    """The rules that layers' moves call for, each once."""
    rules: dict[tuple[str, str], _Draft] = {}
    for move in moves:
        ours, theirs = _without_common_end(move.ours.split("."), move.theirs.split("/"))
        whole = _Draft(f"{move.ours}." if move.ours else "/", f"{move.theirs}/".lstrip("/") or "/")
        for draft in (*_rules_for(ours, theirs), whole):  # the layer's own, if no wider one holds
            rules.setdefault((draft.source, draft.target), draft)
    return list(rules.values())


def _without_common_end(ours: list[str], theirs: list[str]) -> tuple[list[str], list[str]]:
    ours, theirs = [part for part in ours if part], [part for part in theirs if part]
    while ours and theirs and ours[-1] == theirs[-1]:
        ours, theirs = ours[:-1], theirs[:-1]
    return ours, theirs


def _rules_for(ours: Sequence[str], theirs: Sequence[str]) -> Iterable[_Draft]:
    """The rules that carry one path to the other, with all below it."""
    scope, target = "".join(f"{part}." for part in ours), "".join(f"{part}/" for part in theirs)
    yield _Draft(scope or "/", target or "/")
    carried = [n for n in _NUMBER.findall(scope) if n in _NUMBER.findall(target)]
    there = set(_NUMBER.findall(target))
    if not carried or not there <= set(carried):
        return
    if len(set(carried)) < len(carried):  # which number goes where is not clear
        return
    pieces = _NUMBER.split(scope)
    numbers = [r"(\d+)" if n in carried else n for n in _NUMBER.findall(scope)]
    pattern = "".join(
        re.escape(piece) + number
        for piece, number in itertools.zip_longest(pieces, numbers, fillvalue="")
    )
    pattern += "(.+)"
    replacement = _NUMBER.sub(lambda n: f"\\g<{carried.index(n[0]) + 1}>", target)
    replacement = _short_references(f"{replacement}\\g<{len(carried) + 1}>")
    yield _Draft(pattern, replacement, re.compile(pattern, re.DOTALL))


def _short_references(replacement: str) -> str:
    r"""`\1` for `\g<1>` where no digit follows."""
    return re.sub(r"\\g<(\d)>(?!\d)", r"\\\1", replacement)


class _Check:
    """Whether rules make what they should of every variable that they match."""

    def __init__(
        self,
        finder: Finder,
        variables: Sequence[Variable],
        expected: Mapping[Variable, tuple[str, ...]],
    ) -> None:
        self._finder, self._expected = finder, expected
        self._owners = {o.name: (variable, o) for variable in variables for o in variable.owners}
        self._names = sorted(self._owners)

    def is_right(self, draft: _Draft) -> bool:
        return all(self._is_right(draft, name) for name in draft.matching(self._names))

    def _is_right(self, draft: _Draft, name: str) -> bool:
        renamed = draft.apply(name)
        assert renamed is not None
        variable, owner = self._owners[name]
        try:
            source = self._finder.find_renamed(variable, owner, (renamed,))
        except MissingTensorError:
            return variable not in self._expected
        except SettingsError:
            return False
        return tuple(spec.key for spec in source.specs) == self._expected.get(variable)
