"""Suggested names as values: what is proposed for each variable, why, and how sure it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch_warmstart.display import VERSION, Entry, Sheet, Shown
from torch_warmstart.errors import SettingsError, plural, printable
from torch_warmstart.settings import (
    Line,
    NameRules,
    Names,
    Pattern,
    RenameSetting,
    lines_of,
    write_rules,
)
from torch_warmstart.suggesting.confidence import ASKED_FOR, CONFIDENCES, WRITTEN, Confidence
from torch_warmstart.values import frozen

_SHOWN = 20  # rules
_COLUMNS = ("variable", "from", "change", "confidence", "why", "or else")


@frozen
class Suggestion:
    """What is proposed for one variable."""

    variable: str
    names: tuple[str, ...]  # of the checkpoint's tensors that it is made of; none if none fits
    confidence: Confidence
    reason: str
    alternatives: tuple[tuple[str, ...], ...] = ()  # what would do as well, best first
    layout: str | None = None  # for var_name_to_layout, where it is not the one of its module

    @property
    def target(self) -> Names:
        """The value for `var_name_to_prev_var_name`."""
        return self.names[0] if len(self.names) == 1 else list(self.names)


@frozen
class SuggestedRule:
    """A scope or a pattern that stands for several suggestions."""

    source: str
    target: str
    is_scope: bool
    variables: tuple[str, ...]  # the suggestions that it stands for
    confidence: Confidence  # the least of theirs

    def __str__(self) -> str:
        if self.is_scope:
            return f"{{{self.source!r}: {self.target!r}}}"
        return f"({self.source!r}, {self.target!r})"


@frozen(repr=False)
class Suggestions(Shown):
    """Proposed names for the variables that find nothing by themselves. `print()` them.

    They are only proposals: look at the reasons, and at what would do as well.
    """

    items: tuple[Suggestion, ...]
    rules: tuple[SuggestedRule, ...]  # each stands for several items; they never contradict them
    unused: tuple[str, ...]  # tensors of the checkpoint that are proposed for nothing
    url: str
    num_found: int  # variables that need no suggestion

    def as_rules(self, min_confidence: Confidence = "high") -> NameRules:
        """The rules for `var_name_to_prev_var_name`, of this confidence and above.

        Scopes and patterns where they stand for several variables, else the names themselves; and
        the layouts that they need. A plan says of each variable that it was suggested.
        """
        rules = self._rules_of(min_confidence)
        covered = {name for rule in rules for name in rule.variables}
        items = [item for item in self._sure(min_confidence) if item.variable not in covered]
        names: dict[str, Names] = {item.variable: item.target for item in items}
        patterns: list[Pattern] = [(r.source, r.target) for r in rules if not r.is_scope]
        scopes = {rule.source: rule.target for rule in rules if rule.is_scope}
        layouts = self.layouts(min_confidence)
        return NameRules({**names, **scopes}, patterns, layouts=layouts, is_suggested=True)

    def proposals(self, shown: int = _SHOWN) -> list[str]:
        """The first rules and names with what each is worth, a line each, for an error."""
        covered = {name for rule in self.rules for name in rule.variables}
        lines = [f"{rule}  {rule.confidence}, for {_count(rule)}" for rule in self.rules]
        items = [item for item in self.items if item.names and item.variable not in covered]
        lines += [f"{{{i.variable!r}: {i.target!r}}}  {i.confidence}" for i in items]
        more = [f"... and {len(lines) - shown:,} more"] if len(lines) > shown else []
        return lines[:shown] + more

    def layouts(self, min_confidence: Confidence = "high") -> dict[str, str]:
        """What `var_name_to_layout` needs, of this confidence and above."""
        items = self._sure(min_confidence)
        return {item.variable: item.layout for item in items if item.layout is not None}

    def lines(self, min_confidence: Confidence) -> list[Line]:
        """The entries of a rules file: those below this confidence are commented out."""
        rules = self._rules_of(min_confidence)
        covered = {name for rule in rules for name in rule.variables}
        sure = {item.variable for item in self._sure(min_confidence)}
        lines = [_rule_line(rule) for rule in rules]
        for item in self.items:
            if item.names and item.variable not in covered:
                active = item.variable in sure
                lines.append(Line("names", item.variable, item.target, _remark(item), active))
            if item.names and item.layout:
                active = item.variable in sure
                lines.append(Line("layouts", item.variable, item.layout, active=active))
        return lines

    def _sure(self, least: Confidence) -> list[Suggestion]:
        wanted = _at_least(least)
        return [item for item in self.items if item.confidence in wanted]

    def _rules_of(self, least: Confidence) -> list[SuggestedRule]:
        wanted = _at_least(least)
        return [rule for rule in self.rules if rule.confidence in wanted]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        return {
            "version": VERSION,
            "kind": "suggestions",
            "source": self.url,
            "suggestions": [asdict(item) for item in self.items],
            "rules": [asdict(rule) for rule in self.rules],
            "totals": {
                "suggestions": len(self.items),
                "confidence": self._counts(),
                "found": self.num_found,
                "unused_keys": len(self.unused),
            },
            "unused_keys": list(self.unused),
        }

    def _counts(self) -> dict[str, int]:
        return {level: sum(i.confidence == level for i in self.items) for level in CONFIDENCES}

    def _sheet(self) -> Sheet:
        if not self.items:
            found = plural(self.num_found, "variable")
            return Sheet(
                f"Names for {self.url}",
                _COLUMNS,
                (),
                f"Nothing to suggest: {found} are found by themselves.",
            )
        listed = ", ".join(f"{count:,} {level}" for level, count in self._counts().items() if count)
        rules = [f"  {rule}  {rule.confidence}, for {_count(rule)}" for rule in self.rules[:_SHOWN]]
        if len(self.rules) > _SHOWN:
            rules.append(f"  ... and {len(self.rules) - _SHOWN:,} more")
        return Sheet(
            f"Names for {self.url}",
            _COLUMNS,
            tuple(Entry(_cells(item)) for item in self.items),
            f"{plural(len(self.items), 'suggestion')} by confidence: {listed}; "
            f"{self.num_found:,} found by themselves; {plural(len(self.unused), 'tensor')} unused",
            names=2,
            paths="from",
            reasons="why",
            state="confidence",
            remarks=("As rules:", *rules) if rules else (),
        )

    def __str__(self) -> str:
        if not self.items:
            found = plural(self.num_found, "variable")
            return f"Names for {self.url}: nothing to suggest; {found} are found by themselves."
        return self._sheet().as_text()

    def __repr__(self) -> str:
        return f"<Suggestions for {printable(self.url)}: {plural(len(self.items), 'suggestion')}>"


def save_rules(
    path: str | os.PathLike[str],
    rules: Suggestions | RenameSetting,
    *,
    layouts: Mapping[str, str] | None = None,
    min_confidence: Confidence = WRITTEN,
) -> None:
    """Writes a rules file (TOML) to look at, edit, and load with `load_rules`.

    Args:
        path: Where to; an existing file is replaced.
        rules: Suggestions, whose reasons become comments, or what `var_name_to_prev_var_name` takes
            (but no function).
        layouts: What `var_name_to_layout` takes.
        min_confidence: Suggestions below it are commented out.

    Raises:
        SettingsError: the rules are malformed, or a function.
        OSError: the file cannot be written.
    """
    lines = rules.lines(min_confidence) if isinstance(rules, Suggestions) else lines_of(rules)
    lines += [Line("layouts", name, layout) for name, layout in (layouts or {}).items()]
    write_rules(path, lines)


def _at_least(confidence: Confidence) -> Sequence[Confidence]:
    if confidence not in ASKED_FOR:
        raise SettingsError(f"A confidence is 'high', 'medium' or 'low', not {confidence!r}.")
    return CONFIDENCES[: CONFIDENCES.index(confidence) + 1]


def _cells(item: Suggestion) -> tuple[str, ...]:
    others = " | ".join(map(" + ".join, item.alternatives))
    names = " + ".join(item.names)
    return item.variable, names, item.layout or "", item.confidence, item.reason, others


def _count(rule: SuggestedRule) -> str:
    return plural(len(rule.variables), "variable")


def _rule_line(rule: SuggestedRule) -> Line:
    remark = f"{rule.confidence}: for {_count(rule)}, such as {rule.variables[0]}"
    return Line("scopes" if rule.is_scope else "patterns", rule.source, rule.target, remark)


def _remark(item: Suggestion) -> str:
    others = " or ".join(" + ".join(names) for names in item.alternatives)
    return f"{item.confidence}: {item.reason}" + (f"; or else {others}" if others else "")
